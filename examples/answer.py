"""Questions about a story, answered in the story's own words."""

import tokentape as tt

story = "Tom went to the park. Anna has a kite."
questions = ["Where is Tom?", "Who has the kite?"]
found = tt.answer(tt.local("demo"), questions, context=story, span="words")
for question, text in zip(questions, found.texts, strict=True):
    print(question, text)
    assert text in story
