"""Weights: what each kind of token costs."""

from dataclasses import dataclass

from service.domain.usage import Estimate, Usage


@dataclass(frozen=True, slots=True)
class Weights:
    """What a token costs, in millionths of whatever costs are counted in.

    Cached prompt tokens cost what the prompt does where nothing else is said; reasoning and spoken ones
    (`audio`, of the prompt or the completion) what the others beside them do.
    """

    prompt: int
    completion: int
    cached: int | None = None
    reasoning: int | None = None
    audio: int | None = None

    def cost(self, tokens: Estimate | Usage) -> int:
        """What so many tokens cost, in millionths; an estimate, were each of the dearest kind it can be."""
        return self._at_most(tokens) if isinstance(tokens, Estimate) else self._of(tokens)

    def _at_most(self, tokens: Estimate) -> int:
        def dearest(*weights: int | None) -> int:
            return max(weight for weight in weights if weight is not None)

        return tokens.prompt * dearest(self.prompt, self.cached, self.audio) + tokens.completion * dearest(
            self.completion, self.reasoning, self.audio
        )

    def _of(self, usage: Usage) -> int:
        """A token counts once: what is cached not as heard too, what is reasoning not as spoken."""
        return _shared(
            usage.prompt, self.prompt, (usage.cached, self.cached), (usage.prompt_audio, self.audio)
        ) + _shared(
            usage.completion,
            self.completion,
            (usage.reasoning, self.reasoning),
            (usage.completion_audio, self.audio),
        )


def _shared(tokens: int, weight: int, *kinds: tuple[int, int | None]) -> int:
    """The cost of tokens of which some are of kinds with weights of their own."""
    cost = 0
    for count, own in kinds:
        of_kind = min(count, tokens)
        tokens -= of_kind
        cost += of_kind * (weight if own is None else own)
    return cost + tokens * weight
