"""The rules that sort captures without a language model: what is clear, what is not, and what a bare answer names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs.triage import SURE
from graphs.triage_rules import CATEGORIES, LONGEST_TITLE, named, title_of, verdict

CLEAR = [
    ("Met Anna Keller at the meetup, she works at Siemens and likes climbing", "People"),
    ("Tom's birthday is on 3 May", "People"),
    ("Catch up with Priya about her new job", "People"),
    ("My sister is allergic to peanuts", "People"),
    ("Call mum", "People"),
    ("Dr. Weiss recommended a colleague of hers in Munich", "People"),
    ("Follow up with Jonas, he introduced me to Clara", "People"),
    ("Ravi moved to Lisbon with his wife", "People"),
    ("Send condolences to our neighbour", "People"),
    ("Lunch with Marta, thank her for the reference", "People"),
    ("Launch the new website: draft, review, go live", "Projects"),
    ("Migrate our billing pipeline to Postgres 18", "Projects"),
    ("Kitchen renovation: plan the phases and set up a budget", "Projects"),
    ("Ship version 2 of the dashboard, next steps with the team", "Projects"),
    ("Write the thesis: finish the draft of chapter 3", "Projects"),
    ("Organise the spring conference", "Projects"),
    ("Redesign the onboarding feature and roll out to everybody", "Projects"),
    ("Kick off the data platform project", "Projects"),
    ("Build a prototype of the search service", "Projects"),
    ("Prepare the workshop on observability, requirements and scope first", "Projects"),
    ("What if we sold subscriptions to seeds?", "Ideas"),
    ("Idea: a podcast on forgotten inventions", "Ideas"),
    ("Maybe an app that reminds you to stand up", "Ideas"),
    ("Wouldn\N{RIGHT SINGLE QUOTATION MARK}t it be nice to have a map of all public pianos", "Ideas"),
    ("A story about a lighthouse that moves. Might be fun", "Ideas"),
    ("I wonder why is there no umbrella for two", "Ideas"),
    ("Someday explore how bees count", "Ideas"),
    ("We could invent a lamp that follows the sun", "Ideas"),
    ("Brainstorm names for the newsletter", "Ideas"),
    ("Pay the electricity bill by Friday", "Admin"),
    ("Renew passport before June", "Admin"),
    ("Dentist appointment on the 14th at 9:30", "Admin"),
    ("Submit expense report, 240 EUR for the train", "Admin"),
    ("Cancel the gym subscription", "Admin"),
    ("Buy groceries and pick up the dry cleaning", "Admin"),
    ("Tax return is due, file it this week", "Admin"),
    ("Book the plumber for tomorrow", "Admin"),
    ("Transfer the rent to the landlord", "Admin"),
    ("Order printer paper", "Admin"),
]
UNCLEAR = [
    "Anna", "Berlin", "the thing from yesterday", "Call the bank", "Talk to Sam about the website",
    "Maybe set up a team", "Ask Nina for the invoice", "Plan dad's birthday party", "42", "Look into this",
    "Maybe call Jo", "", "???", "den Zahnarzt anrufen", "no idea",
]  # fmt: skip


@pytest.mark.parametrize(("text", "category"), CLEAR)
def test_what_is_clear_is_sorted_with_reasons(text: str, category: str) -> None:
    found = verdict(text)
    assert found.category == category
    assert found.confidence >= SURE
    assert found.reasons[0].startswith(f"{category}: “")


@pytest.mark.parametrize("text", UNCLEAR)
def test_what_is_unclear_is_left_to_a_question(text: str) -> None:
    assert verdict(text).confidence < SURE


@given(
    st.text(max_size=400) | st.lists(st.sampled_from(CLEAR), max_size=4).map(lambda of: ". ".join(one for one, _ in of))
)
def test_every_text_gets_one_verdict_in_bounds(text: str) -> None:
    found = verdict(text)
    assert sorted(name for name, _ in found.ranking) == sorted(CATEGORIES)
    shares = [share for _, share in found.ranking]
    assert shares == sorted(shares, reverse=True)
    assert all(0 <= share <= 1 for share in shares)
    assert found.reasons
    assert verdict(text) == found


def test_repeating_a_word_proves_nothing_more() -> None:
    assert verdict("pay pay pay").ranking == verdict("pay").ranking


def test_a_rival_takes_confidence_away() -> None:
    alone, beside = verdict("invoice"), verdict("invoice for the project")
    assert beside.confidence < alone.confidence


@pytest.mark.parametrize(
    ("answer", "category"),
    [
        ("People", "People"), ("people", "People"), ("PROJECTS", "Projects"), (" ideas. ", "Ideas"),
        ("“Admin”", "Admin"), ("- *admin*!", "Admin"), ("__People__", "People"), ("idea", "Ideas"),
        ("person", "People"),
        ("people and projects", None), ("admin stuff", None), ("peoples", None), ("", None), ("...", None), ("2", None),
    ],
)  # fmt: skip
def test_a_bare_name_is_one_in_any_case_and_punctuation(answer: str, category: str | None) -> None:
    assert named(answer) == category


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Buy milk.", "Buy milk"), ("\n  Buy milk. And bread.", "Buy milk"), ("What now? Go.", "What now?"), ("", ""),
        ("v1.5 is out", "v1.5 is out"),
    ],
)  # fmt: skip
def test_a_title_is_the_first_sentence(text: str, title: str) -> None:
    assert title_of(text) == title


def test_a_long_title_ends_at_a_word() -> None:
    title = title_of("word " * 100)
    assert len(title) <= LONGEST_TITLE
    assert title.endswith("word…")
    assert len(title_of("x" * 500)) <= LONGEST_TITLE
