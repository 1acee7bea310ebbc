"""What is to be sent next: the schedule, follow-ups of conversations, and requests that are sent again."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tokentape.load.workloads import Conversation

__all__ = ["Errand", "Errands"]


@dataclass(frozen=True, slots=True)
class Errand:
    """One request to be sent: the turn of a conversation, after the ``answers`` to the turns before.

    ``due_ns`` None is as soon as there is room for it. ``retry_of`` is the key of the run that it repeats: it is sent at
    ``again_ns``, and due when that one was, so that a time since then holds the failure and the pause too.
    """

    conversation: Conversation
    turn: int = 0
    due_ns: int | None = None
    answers: tuple[str, ...] = ()
    attempt: int = 1
    retry_of: int | None = None
    again_ns: int | None = None

    @property
    def when_ns(self) -> int | None:
        """When it is to be sent; None as soon as there is room for it."""
        return self.due_ns if self.again_ns is None else self.again_ns

    @property
    def goes_on(self) -> bool:
        """Whether the conversation has another turn after this one."""
        return self.turn + 1 < len(self.conversation.turns)

    def follow_up(self, answer: str, ended_ns: int) -> Errand:
        """The next turn, when its time to think is over."""
        think_ns = self.conversation.turns[self.turn + 1].think_ns
        return Errand(self.conversation, self.turn + 1, ended_ns + think_ns, (*self.answers, answer))

    def again(self, key: int, again_ns: int) -> Errand:
        """The same once more, at ``again_ns``."""
        return replace(self, attempt=self.attempt + 1, retry_of=key, again_ns=again_ns)


class Errands:
    """Gives one errand after another, each when it is due and there is room.

    ``feed`` gives conversations with the times at which they begin, in order; None throughout for a closed loop of ``cap``
    users, each of whom begins another conversation as soon as the last has ended. A user who thinks keeps his place. Nothing
    begins at ``until_ns`` or later: what was due before and has waited for room until then is never sent, and counted in
    ``n_unsent``.
    """

    def __init__(
        self, feed: Iterator[tuple[int | None, Conversation]], *, cap: int | None, closed: bool, until_ns: int | None
    ) -> None:
        self._feed = feed
        self._cap = cap
        self._closed = closed
        self._until_ns = until_ns
        self._later: list[tuple[int, int, Errand]] = []
        self._serial = 0
        self._queue: deque[Errand] = deque()
        self._open = True
        self._full = False
        self.n_unsent = 0
        self._fetch()

    def later(self, errand: Errand) -> None:
        """Keep one for when it is to be sent; of no use after the end."""
        when_ns = errand.when_ns
        assert when_ns is not None
        if self._open and (self._until_ns is None or when_ns < self._until_ns):
            self._serial += 1
            heapq.heappush(self._later, (when_ns, self._serial, errand))

    def next(self, now_ns: int, under_way: int) -> Errand | None:
        """The errand to be done now, None where none is due or there is no room."""
        if self._closed:
            if self._later and self._later[0][0] <= now_ns:
                return heapq.heappop(self._later)[2]
            full = under_way + len(self._later) >= (self._cap or 1)
            return None if full or self._ends(now_ns) else self._taken()
        waited, self._full = self._full, self._cap is not None and under_way >= self._cap
        if (waited or self._full) and self._until_ns is not None and now_ns >= self._until_ns:
            self._give_up()
        if self._full:
            return None
        next_ns = self.next_ns
        if next_ns is None or next_ns > now_ns:
            return None
        if self._later and self._later[0][0] == next_ns:
            return heapq.heappop(self._later)[2]
        return self._taken()

    @property
    def next_ns(self) -> int | None:
        """When the next one is to be sent, None where none is left but those that are due at once."""
        times = [self._later[0][0]] if self._later else []
        if self._queue and self._queue[0].due_ns is not None:
            times.append(self._queue[0].due_ns)
        return min(times, default=None)

    @property
    def head(self) -> Errand | None:
        """The next one of the schedule."""
        return self._queue[0] if self._queue else None

    @property
    def done(self) -> bool:
        """Whether nothing is left."""
        return not self._queue and not self._later

    def n_due(self, now_ns: int) -> int:
        """How many are due and have not been done."""
        if not self._closed:
            while self._queue and (self._queue[-1].due_ns or 0) <= now_ns and self._fetch():
                pass
        late = sum(due <= now_ns for due, _, _ in self._later)
        return late + sum(one.due_ns is not None and one.due_ns <= now_ns for one in self._queue)

    def end(self) -> None:
        """Nothing more is to be done."""
        self._open = False
        self._feed = iter(())
        self._queue.clear()
        self._later.clear()

    def _give_up(self) -> None:
        """The time is over, and there was no room for what is left."""
        while self._fetch():
            pass
        self.n_unsent += len(self._queue) + len(self._later)
        self.end()

    def _ends(self, now_ns: int) -> bool:
        if self._until_ns is not None and now_ns >= self._until_ns:
            self._queue.clear()
        return not self._queue

    def _taken(self) -> Errand:
        taken = self._queue.popleft()
        if not self._queue:
            self._fetch()
        return taken

    def _fetch(self) -> bool:
        """Put the next of the schedule behind the others; whether there is one."""
        found = next(self._feed, None)
        if found is None:
            return False
        due_ns, conversation = found
        if due_ns is not None and self._until_ns is not None and due_ns >= self._until_ns:
            self._feed = iter(())
            return False
        self._queue.append(Errand(conversation, due_ns=due_ns))
        return True
