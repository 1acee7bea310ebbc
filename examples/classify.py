"""How sure a model is of a label, and what it would say of a text that says nothing."""

import tokentape as tt

source = tt.local("demo")
reviews = ["The soup was really excellent.", "The song was dull.", "The match is on Monday."]
for normalize in ("sum", "calibrated"):
    found = tt.classify(source, reviews, labels=["positive", "negative"], normalize=normalize)
    for review, item in zip(reviews, found.items, strict=True):
        print(f"{normalize:10}  {item.label:8}  margin {item.margin:.3f}  {review}")
