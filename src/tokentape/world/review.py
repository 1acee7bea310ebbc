"""Short reviews with a sentiment and a topic."""

from __future__ import annotations

from tokentape.world.grammar import Content, Steps, among, silent, weighted

TOPICS = {
    "food": "soup bread pizza salad cake rice coffee dinner".split(),
    "film": "film actor scene ending script trailer camera plot".split(),
    "hotel": "room bed lobby pool view breakfast receptionist balcony".split(),
    "book": "novel chapter author cover poem page story hero".split(),
    "music": "song singer band concert melody album guitar voice".split(),
    "sport": "match team coach goal race player stadium game".split(),
}
POSITIVE = (
    "great wonderful lovely excellent perfect amazing brilliant superb charming delightful nice fantastic".split()
)
NEGATIVE = "terrible awful boring horrible dreadful poor ugly bad disappointing annoying miserable dull".split()
DEGREES = {" ": 0.4, " very ": 0.2, " really ": 0.2, " quite ": 0.1, " simply ": 0.1}
VERBS = {" was": 0.5, " is": 0.3, " seemed": 0.2}
FILLERS = (
    "We came on Monday.",
    "My sister was with me.",
    "It was raining outside.",
    "I had heard about it before.",
    "My friend told me to write this.",
    "It was our second time.",
)
CLOSINGS = {
    "positive": ("I loved it.", "I will come back."),
    "negative": ("I hated it.", "I will not come back."),
}


def review_program() -> Steps:
    """A review, then its sentiment or its topic at even odds.

    One adjective decides the sentiment and one noun the topic; the other sentences fit every review.
    """
    yield "Review: "
    order = yield weighted({"plain": 0.4, "before": 0.3, "after": 0.3}, spoken=False)
    if order == "before":
        yield among(FILLERS)
        yield " "
    topic = yield silent(*TOPICS)
    sentiment = yield silent("positive", "negative")
    yield "The "
    noun = yield among(TOPICS[topic])
    yield weighted(VERBS)
    yield weighted(DEGREES)
    adjective = yield among(POSITIVE if sentiment == "positive" else NEGATIVE)
    yield "."
    if order == "after":
        yield " "
        yield among(FILLERS)
    asked = yield silent("Sentiment", "Topic")
    yield f"\n{asked}:"
    answer = f" {sentiment if asked == 'Sentiment' else topic}"
    yield answer
    evidence = adjective if asked == "Sentiment" else noun
    return Content((f"{noun} {adjective}",), (evidence,), answer)
