"""How the inbox is sorted without a language model: cues with weights, and how clear the first is of the second.

Pure and deterministic: the same text always gets the same verdict, and the verdict names the words it rests on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

CATEGORIES: Final = ("People", "Projects", "Ideas", "Admin")
SCORER: Final = "rules"
LONGEST_TITLE: Final = 80
# Where nothing tells two categories apart, the one that asks least of anybody comes first.
_ORDER: Final = ("Ideas", "Projects", "Admin", "People")
# What is said for no category at all: a single weak word does not decide.
_DOUBT: Final = 1.0
# The runner-up counts twice: what matters is how far the first is ahead of it.
_RIVAL: Final = 1.5
_MOST_REASONS: Final = 5


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a text was taken for. `ranking` has all categories, the likeliest first, with a share of 0 to 1 each."""

    ranking: tuple[tuple[str, float], ...]
    reasons: tuple[str, ...]

    @property
    def category(self) -> str:
        """The likeliest."""
        return self.ranking[0][0]

    @property
    def confidence(self) -> float:
        """How clear it is, 0 to 1."""
        return self.ranking[0][1]


@dataclass(frozen=True, slots=True)
class _Cue:
    category: str
    weight: float
    pattern: re.Pattern[str]


def _cues(category: str, weights: Mapping[float, str]) -> list[_Cue]:
    return [_Cue(category, weight, re.compile(rf"\b(?:{words})\b")) for weight, words in weights.items()]


# Each pattern counts once per different word found, so that repeating a word proves nothing. Lower case.
_CUES: Final = [
    *_cues("People", {
        3.0: r"people|person|birthdays?|anniversary|(?:was|were) introduced to|introduced me to|got married"
             r"|had a baby|(?:his|her|their) (?:wife|husband|partner|son|daughter|kids?|name is)"
             r"|used to work (?:at|for|with)|works? (?:at|for) (?:the )?\w+|moved to \w+ (?:with|from)"
             r"|is allergic to|is (?:a )?vegetarian",
        2.0: r"met|catch up with|caught up with|check in (?:on|with)|get back to|reach out to|follow up with"
             r"|reconnect|coffee with|lunch with|dinner with|drinks with|say thanks? to|thank|congratulate"
             r"|condolences|phone number|prefers|likes|loves|hates|told me|mentioned|recommended|asked me",
        1.5: r"mum|mom|dad|mother|father|sister|brother|cousin|uncle|aunt|grandma|grandpa|niece|nephew|wife"
             r"|husband|colleague|coworker|boss|friend|neighbou?r|mentor|client|manager|teacher|team ?mate|dr"
             r"|mrs?|ms|prof",
        1.0: r"call|ask|tell|email|text|write to|talk(?:ed)? to|speak with|spoke (?:to|with)|visit"
             r"|meet(?:ing)? with",
    }),
    *_cues("Projects", {
        3.0: r"projects?|milestones?|roadmap|kick ?off|work ?stream|go live|proof of concept|mvp|rollout"
             r"|next sprint|phase (?:one|two|three|\d)|statement of work",
        2.0: r"launch|build|ship|release|migrate|migration|redesign|refactor|renovat(?:e|ion)|roll out|deploy"
             r"|implement|prototype|set up|organi[sz]e|rewrite|overhaul|relaunch|automate|upgrade"
             r"|move (?:the|our) \w+ to|write (?:the|a|my) (?:book|thesis|report|proposal|plan|spec)"
             r"|plan(?:ning)? (?:the|our|a|my|for)|plan \w+'s|finish (?:the|my|our)|prepare (?:the|a|my|our)",
        1.0: r"website|app|landing page|dashboard|pipeline|backlog|draft|deliverables?|requirements|spec|scope"
             r"|budget|steps|tasks|team|conference|workshop|kitchen|garden|feature|version \d+|v\d+|next steps?"
             r"|stakeholders?|party",
    }),
    *_cues("Ideas", {
        3.0: r"ideas?|what if|brainstorm|shower thought|wouldn't it be|how about (?:we|a|an)|imagine"
             r"|business model",
        2.0: r"maybe|could we|we could|i could|might be (?:fun|nice|cool|worth)|would be (?:fun|nice|cool|great)"
             r"|some ?day|i wonder|wondering|why (?:don't we|not|is there no)|concept|inspiration|inspired"
             r"|thoughts? (?:on|about)|explore|experiment with|an app that|a (?:tool|game|service|device) that",
        1.0: r"interesting|curious|perhaps|possibly|story|novel|blog post about|article about|read about|theory"
             r"|invent",
    }),
    *_cues("Admin", {
        3.0: r"admin|administrative|errand|chore|invoices?|tax(?:es)?|tax return|insurance|passport|visa"
             r"|driving licen[cs]e|rent|mortgage|electricity bill|utility bill|bills?|receipts?|expenses?"
             r"|expense report|reimburse(?:ment)?|refund|subscription|vat|iban|dentist|doctor's appointment"
             r"|appointment|vaccination|car registration|timesheet|payroll|warranty",
        2.0: r"pay|renew|cancel|book|submit|file|register|sign up|sign (?:the|a)|fill (?:in|out)|form|schedule"
             r"|reschedule|order|buy|pick up|drop off|return (?:the|my)|bank|transfer|deposit|post office"
             r"|prescription|groceries|dry cleaning|plumber|electrician|garage|service the car|parking|fine"
             r"|council|landlord|password|paperwork",
        1.0: r"by (?:mon|tues|wednes|thurs|fri|satur|sun)day|by tomorrow|before (?:mon|tues|wednes|thurs|fri)day"
             r"|due|tomorrow|tonight|expires?|deadline|reminder|remember to|don't forget"
             r"|at \d{1,2}(?::\d\d)? ?(?:am|pm)?|on (?:the )?\d{1,2}(?:st|nd|rd|th)?"
             r"|by (?:the )?\d{1,2}(?:st|nd|rd|th)?",
    }),
]  # fmt: skip

_MONEY: Final = re.compile(r"[$€£]\s?\d[\d.,]*|\b\d[\d.,]*\s?(?:usd|eur|gbp|chf|dollars|euros|pounds)\b", re.IGNORECASE)
_MONEY_WEIGHT: Final = 2.0
# A capital inside a sentence, or before a verb that only people do: most likely somebody's name.
_NAME: Final = re.compile(r"(?<![.!?:\n“\"] )(?<!^)\b[A-Z][a-z]{2,}\b(?:'s)?")
_NAME_FIRST: Final = re.compile(
    r"^[A-Z][a-z]+(?: [A-Z][a-z]+)?"
    r"(?:'s\b| (?:is|was|has|had|wants|likes|loves|said|says|told|asked|works|lives|knows|from)\b)"
)
# Alone, a name is not enough: cities and nouns of other languages have capitals too.
_NAME_WEIGHTS: Final = (1.4, 0.5)
_NO_NAMES: Final = re.compile(
    r"(?:mon|tues|wednes|thurs|fri|satur|sun)day|january|february|march|april|may|june|july|august|september|october"
    r"|november|december|english|german|french|spanish|internet|python|google|amazon|netflix|apple|microsoft|github"
    r"|postgres|slack|linux|windows|android|excel|europe|germany|berlin|london|paris|vienna|york|what|why|how|when|where"
    r"|who|the|this|that|these|those|and|but|for|with|from|our|new"
)
_NO_SUBJECTS: Final = re.compile(r"it|this|that|there|here|he|she|they|we|what|who|everything|something|nothing")


def verdict(text: str) -> Verdict:
    """What the rules take `text` for. Without any cue every category is as likely, and the confidence is low."""
    found = _found(text)
    scores: dict[str, float] = dict.fromkeys(CATEGORIES, 0.0)
    for category, weight, _ in found:
        scores[category] += weight
    ordered = sorted(_ORDER, key=lambda one: -scores[one])
    first, second, *rest = (scores[one] for one in ordered)
    clear = max(first / (first + _RIVAL * second + sum(rest) + _DOUBT), 1 / len(CATEGORIES))
    # What is left is shared out among the others, each as likely as the first at most.
    left, others = 1 - clear, second + sum(rest) + _DOUBT
    likely = [clear, *(min(clear, left * (scores[one] + _DOUBT / 3) / others) for one in ordered[1:])]
    ranking = [(one, round(share, 2)) for one, share in zip(ordered, likely, strict=True)]
    told = sorted(found, key=lambda one: (one[0] != ordered[0], -one[1]))[:_MOST_REASONS]
    reasons = tuple(f"{category}: “{words}”" for category, _, words in told)
    return Verdict(tuple(ranking), reasons or ("no word points to any category",))


def _found(text: str) -> list[tuple[str, float, str]]:
    """Every cue of the text: the category it speaks for, how much, and the words."""
    # "No idea" is none.
    lowered = re.sub(r"\bno idea\b", "", text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))
    found = [
        (cue.category, cue.weight, words)
        for cue in _CUES
        for words in dict.fromkeys(match[0].strip() for match in cue.pattern.finditer(lowered))
    ]
    found += [("Admin", _MONEY_WEIGHT, words[0]) for words in list(_MONEY.finditer(text))[:1]]
    return found + [("People", weight, name) for weight, name in zip(_NAME_WEIGHTS, _names(text), strict=False)]


def _names(text: str) -> list[str]:
    subject = _NAME_FIRST.match(text.strip())
    named = [subject[0]] if subject and not _NO_SUBJECTS.fullmatch(re.split(r"[ ']", subject[0])[0].lower()) else []
    named += [match[0] for match in _NAME.finditer(text.strip())]
    return [name for name in dict.fromkeys(named) if not _NO_NAMES.fullmatch(name.removesuffix("'s").lower())]


def title_of(text: str) -> str:
    """The first sentence, shortened at a word."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    sentence = re.split(r"(?<=[.!?])\s", line, maxsplit=1)[0].rstrip(".")
    if len(sentence) <= LONGEST_TITLE:
        return sentence
    return sentence[: LONGEST_TITLE - 1].rsplit(" ", 1)[0] + "…"


_SINGULAR: Final = {"person": "People", "project": "Projects", "idea": "Ideas"}
_NAMED: Final = {**{one.lower(): one for one in CATEGORIES}, **_SINGULAR}


def named(answer: str) -> str | None:
    """The category that `answer` is the bare name of, whatever its case and punctuation; None for any other text."""
    return _NAMED.get(re.sub(r"^[\W_]+|[\W_]+$", "", answer).lower())
