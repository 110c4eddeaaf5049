"""What each router gets right and costs on the shop's questions: `python benchmarks/routers.py`, a minute or two at the local door.

python benchmarks/routers.py --split calibration      # to choose
python benchmarks/routers.py --split test             # the published figure: look once
"""

from __future__ import annotations

import argparse

from workshop_lib import open_workshop
from workshop_lib.embedding import Embedder
from workshop_lib.lessons import lab07
from workshop_lib.shop import ShopAgent, baselines, load_questions, weak
from workshop_lib.shop.comparison import compare_routers
from workshop_lib.shop.runs import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=["calibration", "test"], default="calibration")
    split = parser.parse_args().split
    questions, train, embedder = load_questions(split), load_questions("train"), Embedder()
    with open_workshop() as workshop, ShopAgent(workshop) as agent:
        print(workshop.door)
        agent.classifier(questions[0].text)  # the small models are trained or loaded
        cheap, strong = (run(agent, questions, tier, workers=4) for tier in ("cheap", "strong"))  # type: ignore[arg-type]
        compared = compare_routers(
            {
                "always-strong": baselines.always_strong,
                "always-cheap": baselines.always_cheap,
                "keywords": baselines.keywords,
                "length": baselines.LengthThreshold.fit(train),
                "nearest example": baselines.NearestExample(load_questions("few_shot"), embedder),
                "learned": baselines.Learned(train, embedder),
                "classifier": agent.classifier,
                "oracle": baselines.Oracle(questions),
            },
            questions,
            cheap=cheap.answers,
            strong=strong.answers,
        )
    checks = {"cascade": weak, "cascade by meaning": baselines.Unlike(embedder=embedder)}
    found = lab07.lines(compared, questions, cheap, strong, checks)
    for shown in (lab07.side_by_side(found), lab07.mistakes(compared), lab07.confusion(compared, "classifier")):
        print(f"\n{shown}")
    names = ["always-strong", "always-cheap", "keywords", "learned", "cascade by meaning"]
    print(f"\n{lab07.paired(found, 'classifier', names)}")
    for name, check in checks.items():
        print(f"{name}: {lab07.seen_by_check(cheap, check)}")
    print("\ncheapest in all, by what a wrong answer costs (hindsight and oracle left out):")
    print(lab07.in_words(lab07.cheapest([line for line in found if line.name not in {"hindsight", "oracle"}])))


if __name__ == "__main__":
    main()
