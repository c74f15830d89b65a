"""The members that the memory backend lists."""

from sse_asgi.backends._members import MemberLists
from sse_asgi.backends.base import Member

ADA, BOB = Member("a", "ada"), Member("a", "bob")


def test_a_join_is_the_first_listing_and_a_leave_the_last() -> None:
    """Of an identity on a channel, in all processes; a member that is listed again changes nothing."""
    lists = MemberLists()
    assert lists.attend("one", 0.0, 9.0, [ADA], []) == [("join", ADA)]
    assert lists.attend("one", 0.0, 9.0, [ADA], []) == []
    assert lists.attend("two", 0.0, 9.0, [ADA], []) == []
    assert lists.attend("one", 0.0, 9.0, [], [ADA]) == []
    assert lists.attend("one", 0.0, 9.0, [], [ADA]) == []
    assert lists.attend("two", 0.0, 9.0, [BOB], [ADA]) == [("join", BOB), ("leave", ADA)]
    assert (lists.count("one"), lists.count("two")) == (0, 1)


def test_the_identities_of_a_channel() -> None:
    """A channel without members is forgotten."""
    lists = MemberLists()
    lists.attend("one", 0.0, 9.0, [ADA, BOB, Member("b", "ada")], [])
    assert (sorted(lists.identities("a")), list(lists.identities("b"))) == (["ada", "bob"], ["ada"])
    lists.attend("one", 0.0, 9.0, [], [ADA, BOB])
    assert (list(lists.identities("a")), list(lists.identities("b"))) == ([], ["ada"])


def test_a_process_is_removed_when_its_lease_has_run_out() -> None:
    """By the next call of another process. Its own renewal keeps its members, even if it is late."""
    lists = MemberLists()
    lists.attend("one", 0.0, 9.0, [ADA], [])
    lists.attend("two", 0.0, 20.0, [BOB], [])
    assert lists.expire(9.0) == []
    assert lists.attend("one", 10.0, 9.0, [], []) == []
    assert lists.attend("two", 20.0, 9.0, [], []) == [("leave", ADA)]
    assert lists.expire(30.0) == [("leave", BOB)]
    assert list(lists.identities("a")) == []
