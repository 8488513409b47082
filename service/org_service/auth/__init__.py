"""Who acts, and by which rules: tokens, the keys they are signed with, and the policy file."""
