"""Memory images once more, in plain Python: one element after the other, no NumPy tricks."""

import itertools
from pathlib import Path


def plain_words(
    values: list[int], bits: int, word_bits: int, first_lane: str = "least_significant"
) -> list[int]:
    """Packs integers as the documentation says, into Python integers."""
    unsigned = [value % 2**bits for value in values]
    if bits > word_bits:
        count = (bits + word_bits - 1) // word_bits
        return [(u // 2 ** (word_bits * i)) % 2**word_bits for u in unsigned for i in range(count)]
    lanes = word_bits // bits
    words = []
    for start in range(0, len(unsigned), lanes):
        word = 0
        for lane, u in enumerate(unsigned[start : start + lanes]):
            if first_lane == "least_significant":
                word += u * 2 ** (lane * bits)
            else:
                word += u * 2 ** (word_bits - bits - lane * bits)
        words.append(word)
    return words


def plain_elements(words: list[int], record: dict, word_bits: int, first_lane: str) -> list[int]:
    """Reads the elements of a manifest's record back from its words."""
    bits, signed = record["format"]["bits"], record["format"]["signed"]
    elements = []
    for index in range(record["elements"]):
        if bits > word_bits:
            count = (bits + word_bits - 1) // word_bits
            parts = words[index * count : (index + 1) * count]
            raw = sum(part << (word_bits * i) for i, part in enumerate(parts)) % 2**bits
        else:
            lanes = word_bits // bits
            word, lane = words[index // lanes], index % lanes
            low = (
                lane * bits if first_lane == "least_significant" else word_bits - (lane + 1) * bits
            )
            raw = (word >> low) % 2**bits
        elements.append(raw - 2**bits if signed and raw >= 2 ** (bits - 1) else raw)
    return elements


def plain_tensor(folder: Path, record: dict, words: dict) -> dict[tuple[int, ...], int]:
    """Reads a file of an export from the manifest's JSON alone: element by coordinate."""
    text = (folder / record["path"]).read_text()
    if record["encoding"] == "dec":
        elements = [int(line) for line in text.splitlines()]
    else:
        base = {"hex": 16, "bin": 2}[record["encoding"]]
        lines = [line for line in text.splitlines() if not line.startswith("//")]
        assert len(lines) == record["words"]
        integers = [int(line, base) for line in lines]
        elements = plain_elements(integers, record, words["word_bits"], words["first_lane"])
    sizes = [record["shape"][axis] for axis in record["axes"]]
    tensor = {}
    for element, permuted in zip(elements, itertools.product(*map(range, sizes)), strict=True):
        index = [0] * len(sizes)
        for axis, at in zip(record["axes"], permuted, strict=True):
            index[axis] = at
        tensor[tuple(index)] = element
    return tensor
