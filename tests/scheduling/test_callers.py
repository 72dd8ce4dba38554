"""What is remembered of callers, here and gone."""

from __future__ import annotations

from chairlift.scheduling.callers import REMEMBERED, Callers


def test_a_caller_keeps_the_number_and_what_was_had() -> None:
    callers = Callers()
    number = callers.come("ada")
    callers.serve("ada", 3.0)
    callers.leave("ada")
    assert callers.come("ada") == number
    assert callers.served[number] == 3.0


def test_time_that_was_not_used_can_not_be_saved_up() -> None:
    callers = Callers()
    ada, grace = callers.come("ada"), callers.come("grace")
    callers.serve("ada", 5.0)
    callers.serve("grace", 7.0)
    newcomer = callers.come("barbara")
    assert callers.served[newcomer] == 5.0
    assert [callers.served[number] for number in (ada, grace)] == [5.0, 7.0]


def test_a_second_row_changes_nothing_of_what_was_had() -> None:
    callers = Callers()
    callers.come("ada")
    grace = callers.come("grace")
    callers.serve("ada", 5.0)
    assert callers.come("grace") == grace
    assert callers.served[grace] == 0.0
    callers.leave("grace")
    callers.serve("grace", 1.0)  # The other row is still here.
    assert callers.served[grace] == 1.0


def test_who_has_gone_says_nothing_of_what_those_who_are_here_have_had() -> None:
    callers = Callers()
    callers.come("gone")
    callers.leave("gone")
    callers.come("ada")
    callers.serve("ada", 5.0)
    assert callers.served[callers.come("barbara")] == 5.0


def test_who_came_back_is_not_forgotten() -> None:
    callers = Callers()
    callers.come("ada")
    callers.leave("ada")
    ada = callers.come("ada")
    for number in range(REMEMBERED + 1):
        callers.come(f"caller {number}")
        callers.leave(f"caller {number}")
    callers.serve("ada", 1.0)
    assert callers.served[ada] == 1.0


def test_of_all_who_were_ever_here_only_the_last_are_remembered() -> None:
    callers = Callers()
    callers.come("here")
    for number in range(3 * REMEMBERED):
        callers.come(f"caller {number}")
        callers.leave(f"caller {number}")
    assert len(callers.served) == REMEMBERED + 1
    callers.serve("here", 1.0)
    numbers = {callers.come(f"caller {number}") for number in range(3 * REMEMBERED)}
    assert len(numbers) == 3 * REMEMBERED
