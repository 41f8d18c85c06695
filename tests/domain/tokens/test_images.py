import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.tokens.families import FACTS, family
from service.domain.tokens.images import Limit, Patches, Tiles
from service.domain.tokens.pictures import LONGEST, Size

DETAILS = ("low", "high", "original", "auto", "else")
FAMILIES = sorted({glob.replace("*", "").split("[")[0] for fact in FACTS for glob in fact.models.split()})
RULES = sorted({family(model).image for model in [*FAMILIES, "gpt-5.6", "gpt-5.10", "unknown"]}, key=repr)
SIDES = st.integers(1, LONGEST) | st.integers(1, 4096) | st.sampled_from([1, 32, 33, 512, 768, 2048, LONGEST])
SIZES = st.builds(Size, SIDES, SIDES)


@pytest.mark.parametrize(
    ("model", "size", "detail", "tokens"),
    [
        ("gpt-4o", (1024, 1024), "high", 765),
        ("gpt-4o", (2048, 4096), "high", 1105),
        ("gpt-4o", (4096, 8192), "low", 85),
        ("gpt-4.1", (1024, 1024), "high", 765),
        ("gpt-4.1", (2048, 4096), "high", 1105),
        ("gpt-4.1", (4096, 8192), "low", 85),
        ("gpt-4o-mini", (4096, 8192), "low", 2833),
        ("gpt-4o-mini", (1024, 1024), "high", 25501),
        ("o1", (1024, 1024), "high", 675),
        ("o1", (1024, 1024), "low", 75),
        ("o3", (1024, 1024), "high", 675),
        ("o3", (1024, 1024), "low", 75),
        ("gpt-5", (1024, 1024), "high", 630),
        ("gpt-5", (1024, 1024), "low", 70),
        ("gpt-5.1", (1024, 1024), "high", 630),
        ("gpt-5.1", (1024, 1024), "low", 70),
        ("gpt-4.1-mini", (1024, 1024), "high", 1659),
        ("o4-mini", (1024, 1024), "high", 1762),
        ("gpt-4.1-nano", (1024, 1024), "high", 2520),
        ("o4-mini", (1800, 2400), "high", 2498),
        ("gpt-5.4", (1024, 1024), "high", 1229),
        ("gpt-5.4", (2048, 2048), "high", 3000),
        ("gpt-5.4", (2048, 2048), "low", 4916),  # which may cost more than high
        ("gpt-5.4", (4032, 3024), "original", 11868),
        ("gpt-5.5", (4032, 3024), "auto", 11868),
        ("gpt-5.5", (4032, 3024), "low", 231),
        ("gpt-5.6-sol", (4000, 2500), "auto", 11850),
        ("gpt-5.6-sol", (1024, 768), "low", 231),
    ],
)
def test_an_image_costs_what_the_documentation_says(
    model: str, size: tuple[int, int], detail: str, tokens: int
) -> None:
    assert family(model).image.tokens(Size(*size), detail) == tokens


# Recorded answers of the API, less the text that was counted: pydantic-ai (tests/models/cassettes), ruby_llm
# (spec/fixtures/vcr_cassettes), openai-tokens-count (tests/tokens.json); gpt-5-mini: community.openai.com.
@pytest.mark.parametrize(
    ("model", "size", "detail", "tokens"),
    [
        ("gpt-4o", (597, 566), "auto", 765),
        ("gpt-4o", (540, 360), "auto", 425),
        ("gpt-4o", (511, 511), "auto", 255),
        ("gpt-4o", (255, 720), "auto", 425),
        ("gpt-4o", (3600, 300), "auto", 765),
        ("gpt-4o", (2048, 1025), "high", 1105),
        ("gpt-4o", (2048, 1025), "low", 85),
        ("gpt-4o", (2048, 768), "high", 1445),
        ("gpt-4o-mini", (511, 511), "high", 8500),
        ("gpt-4o-mini", (511, 511), "low", 2833),
        ("gpt-4o-mini", (800, 800), "auto", 25501),
        ("gpt-4.1-nano", (128, 128), "auto", 40),
        ("gpt-4.1-nano", (275, 183), "auto", 133),
        ("gpt-4.1-nano", (540, 360), "auto", 502),
        ("gpt-5-nano", (128, 128), "auto", 24),
        ("gpt-5-mini", (256, 256), "auto", 77),
        ("gpt-5-mini", (512, 512), "auto", 308),
        ("gpt-5-mini", (768, 1024), "auto", 922),
        ("gpt-5-mini", (1280, 720), "auto", 1104),
        ("gpt-5-mini", (1024, 1024), "auto", 1229),
        ("gpt-5-mini", (2048, 768), "auto", 1844),
        ("gpt-6-luna", (2400, 2400), "auto", 6750),
    ],
)
def test_an_image_costs_what_was_recorded(
    model: str, size: tuple[int, int], detail: str, tokens: int
) -> None:
    assert family(model).image.tokens(Size(*size), detail) == tokens


@pytest.mark.parametrize(
    ("size", "tiles"),
    [
        ((1100, 500), 3 * 1),  # is not enlarged
        ((1025, 768), 3 * 2),
        ((1025, 769), 2 * 2),  # as 1023 × 768
        ((2049, 1537), 2 * 2),
        ((65_535, 1), 4 * 1),
        ((1, 1), 1),
    ],
)
def test_tiles_are_counted_once_an_image_is_small_enough(size: tuple[int, int], tiles: int) -> None:
    assert Tiles(1000, 1).tokens(Size(*size), "high") == 1000 + tiles


def test_half_a_pixel_counts_as_one_where_an_image_is_made_to_fit() -> None:
    assert Limit(2048).seen(Size(4096, 833)) == 64 * 14  # 416.5 px of height


@pytest.mark.parametrize(
    ("model", "low", "high", "auto"),
    [
        ("gpt-4o", 85, 1445, 1445),
        ("gpt-4-turbo", 85, 1445, 1445),
        ("gpt-4o-mini", 2833, 48169, 48169),
        ("gpt-5", 70, 1190, 1190),
        ("gpt-5.1-2025-11-13", 70, 1190, 1190),
        ("o1", 75, 1275, 1275),
        ("gpt-4.1-mini", 6636, 6636, 6636),
        ("gpt-4.1-nano", 3779, 3779, 3779),
        ("gpt-5-mini", 1844, 1844, 1844),
        ("gpt-5-nano", 2304, 2304, 2304),
        ("o4-mini", 2642, 2642, 2642),
        ("gpt-5.1-codex-mini", 1844, 1844, 1844),
        ("gpt-5.2", 4916, 4916, 4916),
        ("gpt-5.2-codex", 1844, 1844, 1844),
        ("gpt-5.4", 4916, 3000, 3000),
        ("gpt-5.5", 308, 3000, 12000),
        ("gpt-5.10", 308, 3000, 36000),
        ("gpt-6-sol", 308, 3000, 36000),
        ("gpt-6-astra", 308, 3000, 36000),
        ("llama-4", 308, 3000, 3000),
    ],
)
def test_the_most_an_image_costs_follows_from_the_family_and_the_detail(
    model: str, low: int, high: int, auto: int
) -> None:
    image = family(model).image
    assert [image.worst(detail) for detail in ("low", "high", "auto")] == [low, high, auto]


@given(rule=st.sampled_from(RULES), size=SIZES, detail=st.sampled_from(DETAILS))
def test_no_image_costs_more_than_the_worst(rule: Tiles | Patches, size: Size, detail: str) -> None:
    assert 0 < rule.tokens(size, detail) <= rule.worst(detail)


@given(rule=st.sampled_from(RULES), size=SIZES, detail=st.sampled_from(DETAILS))
def test_an_image_that_is_turned_costs_the_same(rule: Tiles | Patches, size: Size, detail: str) -> None:
    assert rule.tokens(Size(size.height, size.width), detail) == rule.tokens(size, detail)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("detail", DETAILS)
def test_some_image_costs_the_worst(rule: Tiles | Patches, detail: str) -> None:
    sides = (512, 768, 1600, 2048, 5540, 6000)
    shapes = [Size(a, b) for a in sides for b in sides]
    whole = [Size(32 * n, 32 * m) for n, m in ((48, 32), (50, 50), (100, 100), (200, 150))]
    assert max(rule.tokens(size, detail) for size in shapes + whole) == rule.worst(detail)


@given(size=SIZES, patches=st.integers(1536, 10_000))
def test_what_is_shrunk_uses_what_is_allowed_as_far_as_one_side_is_whole(size: Size, patches: int) -> None:
    whole, seen = Limit(6000).seen(size), Limit(6000, patches).seen(size)
    assert seen <= min(whole, patches)
    if whole > patches and max(size) < 3 * min(size):
        assert seen > 0.9 * patches


@pytest.mark.parametrize(
    ("size", "patches"),
    [((1800, 2400), 33 * 44), ((1600, 1600), 39 * 39), ((1024, 1900), 28 * 52), ((4000, 1474), 64 * 24)],
)
def test_an_image_is_shrunk_as_the_documentation_does_it(size: tuple[int, int], patches: int) -> None:
    assert Limit(2048, 1536).seen(Size(*size)) == patches
