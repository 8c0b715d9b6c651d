"""Programs that run one after another in rounds, so that a change in the machine's speed meets all alike, and how they compare."""

import json
import statistics


def take_turns(who, rounds, run, about, out):
    """The rows of each, `run(one, round)`. They are printed, and added to the file `out` if there is one, with what is true `about` all."""
    found = {one: [] for one in who}
    file = open(out, "a") if out else None
    for round_ in range(rounds):
        for one in who:
            row = run(one, round_)
            found[one].append(row)
            line = json.dumps({"round": round_, "who": one, **about, **row})
            print(line, flush=True)
            if file:
                file.write(line + "\n")
                file.flush()
    return found


def seeded(args, own, theirs):
    """What `take_turns` runs: `own(args)` for danlu and `theirs(args, who)` for the others, each round with a seed of its own."""
    first = args.seed

    def run(who, round_):
        args.seed = first + round_
        return {"seed": args.seed, **(own(args) if who == "danlu" else theirs(args, who))}

    return run


def median(rows, key):
    return statistics.median(row[key] for row in rows)


def compare(found, rate, described):
    """A line for each, as `described(who, rows)`; the first is set against the others by `rate` and memory, round by round."""
    (first, own), *_ = found.items()
    for who, rows in found.items():
        text = described(who, rows)
        if who != first:
            speed = [a[rate] / b[rate] for a, b in zip(own, rows)]
            memory = [a["peak_mb"] / b["peak_mb"] for a, b in zip(own, rows)]
            text += f"; {first} is {statistics.median(speed):.2f} times as fast (rounds {' '.join(f'{s:.2f}' for s in speed)}) with {statistics.median(memory):.2f} of the memory"
        print(text)
