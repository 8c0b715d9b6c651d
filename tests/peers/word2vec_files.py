"""Files of word vectors between danlu and gensim, both ways and in both formats, and what either finds near and by analogy.

    danlu train recipes/2013-word2vec.toml
    python tests/peers/word2vec_files.py --danlu target/release/danlu [--model word2vec]

Needs gensim.
"""

import argparse
import json
import pathlib
import random
import subprocess
import tempfile

import numpy as np
from gensim.models import KeyedVectors


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--danlu", required=True)
    parser.add_argument("--model", default="word2vec")
    args = parser.parse_args()

    def danlu(*arguments):
        return subprocess.run([args.danlu, "embed", *map(str, arguments)], check=True, capture_output=True, text=True).stdout

    def near(*arguments):
        return [(row["word"], row["cosine"]) for row in json.loads(danlu(*arguments, "--json"))]

    def same(what, ours, theirs):
        # Words whose cosines are equal to rounding may stand in either order.
        assert np.allclose([cosine for _, cosine in ours], [cosine for _, cosine in theirs], atol=1e-5), (what, ours, theirs)
        apart = [a for a, b in zip(ours, theirs) if a[0] != b[0]]
        assert len(apart) == 0 or all(min(abs(a[1] - b[1]) for b in theirs) < 1e-5 for a in apart), (what, ours, theirs)

    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        read = {}
        for name, binary in [("ours.txt", False), ("ours.bin", True)]:
            danlu("export", scratch / name, "--model", args.model)
            read[name] = KeyedVectors.load_word2vec_format(str(scratch / name), binary=binary)
        text, binary = read.values()
        assert text.index_to_key == binary.index_to_key and (text.vectors == binary.vectors).all(), "the two formats differ"
        print(f"gensim reads {len(text)} words of {text.vector_size} channels from both formats, the same bits")

        words = random.Random(1).sample(text.index_to_key[:2000], 20)
        for word in words:
            same(word, near("near", word, "--model", args.model), text.most_similar(word, topn=10))
        for at in range(0, 18, 3):
            a, b, c = words[at : at + 3]
            ours, theirs = near("analogy", a, b, c, "--model", args.model), text.most_similar(positive=[b, c], negative=[a], topn=5)
            same((a, b, c), ours, theirs)
        print("near words and analogies agree")

        for name, binary in [("theirs.txt", False), ("theirs.bin", True)]:
            text.save_word2vec_format(str(scratch / name), binary=binary)
            same(name, near("near", words[0], "--vectors", scratch / name), text.most_similar(words[0], topn=10))
            danlu("export", scratch / f"back.{name}", "--vectors", scratch / name)
        back = KeyedVectors.load_word2vec_format(str(scratch / "back.theirs.bin"), binary=True)
        assert (back.vectors == text.vectors).all(), "vectors that gensim wrote come back as others"
        print("danlu reads what gensim writes")


if __name__ == "__main__":
    main()
