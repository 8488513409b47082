"""Who acts: tokens and the keys they are signed with."""
