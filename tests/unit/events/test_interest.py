"""Which partitions of the results a client has to read."""

from uuid import UUID

from org_events import DeleteOrganization, UncheckedCommand, partition_for
from org_events.publishing.interest import ANY, Interest, keys_of_result

ORG, COMMAND = UUID("0192d3a0-0000-7000-8000-000000000001"), UUID(int=7)
KEY, COMMAND_KEY = str(ORG).encode(), str(COMMAND).encode()


def wanted(interest: Interest) -> set[int]:
    return {partition for partition in range(48) if interest.wants(partition)}


def test_a_command_is_answered_on_the_partition_of_its_organization() -> None:
    interest = Interest()
    interest.learn(12)
    interest.hold("a", keys_of_result(DeleteOrganization(org_id=ORG), COMMAND))
    assert wanted(interest) == interest.find(interest.keys_of("a")) == {partition_for(KEY, 12)}
    interest.release("a")
    interest.release("a")
    assert wanted(interest) == set()


def test_a_body_that_the_service_may_not_be_able_to_read_may_be_answered_by_the_command_id() -> None:
    assert keys_of_result(UncheckedCommand("org.update", ORG, b"{"), COMMAND) == (KEY, COMMAND_KEY)


def test_while_topics_grow_the_former_partition_counts_too_also_for_what_is_sent_later() -> None:
    interest = Interest()
    interest.learn(12)
    interest.hold("a", (KEY,))
    interest.learn(36)
    interest.hold("b", (KEY,))
    assert wanted(interest) == interest.find(interest.keys_of("b")) == {partition_for(KEY, 12), partition_for(KEY, 36)}
    interest.release("a")
    interest.release("b")
    assert wanted(interest) == set()


def test_who_does_not_know_the_key_wants_all_partitions_and_those_that_are_added() -> None:
    interest = Interest()
    interest.learn(3)
    interest.hold("a", ANY)
    interest.learn(6)
    assert wanted(interest) == set(range(6))


def test_one_partition_is_wanted_until_the_last_loses_interest() -> None:
    interest = Interest()
    interest.learn(12)
    for who in "ab":
        interest.hold(who, (KEY,))
        interest.hold(who, (KEY,))
    interest.release("a")
    assert wanted(interest) == {partition_for(KEY, 12)}


def test_one_command_id_for_two_organizations_wants_both() -> None:
    interest = Interest()
    interest.learn(12)
    interest.hold("a", (KEY,))
    interest.hold("a", (COMMAND_KEY,))
    assert wanted(interest) == {partition_for(KEY, 12), partition_for(COMMAND_KEY, 12)}
