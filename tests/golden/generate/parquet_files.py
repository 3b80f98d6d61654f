"""Data files as pyarrow writes them: rows of every type in Parquet, and the same rows in JSON lines -> ../fixtures/parquet_files/

    python parquet_files.py
"""

import json

import pyarrow as pa
import pyarrow.parquet as pq
from common import fresh_folder

SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("long_text", pa.large_string()),
        ("label", pa.int64()),
        ("small", pa.int8()),
        ("count", pa.uint32()),
        ("score", pa.float32()),
        ("weight", pa.float64()),
        ("right", pa.bool_()),
        ("tokens", pa.list_(pa.string())),
        ("tags", pa.large_list(pa.int64())),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("pairs", pa.list_(pa.list_(pa.int32()))),
        ("source", pa.struct([("name", pa.string()), ("page", pa.int32()), ("tags", pa.list_(pa.string()))])),
        ("more", pa.map_(pa.string(), pa.int64())),
    ]
)

FEATURES = {
    "label": {"names": ["negative", "positive"], "_type": "ClassLabel"},
    "tags": {"feature": {"names": ["O", "B-LOC", "I-LOC"], "_type": "ClassLabel"}, "_type": "List"},
    "messages": [{"role": {"dtype": "string", "_type": "Value"}, "content": {"dtype": "string", "_type": "Value"}}],
}


def rows(n):
    """Rows with nulls, empty lists and repeated values in every place where Parquet treats them apart."""
    for i in range(n):
        yield {
            "text": f"the {['sea', 'sun', 'hill'][i % 3]} number {i % 7}, größer",
            "long_text": None if i % 5 == 4 else f"row {i}: " + "na\u00efve \u2615 " * (i % 4),
            "label": i % 2,
            "small": (i * 37) % 255 - 127,
            "count": i * 1000003 % 2**32,
            "score": [0.1, -2.5, 3.0][i % 3],
            "weight": i / 7,
            "right": i % 3 == 0,
            "tokens": None if i % 11 == 10 else [f"w{j}" for j in range(i % 4)],
            "tags": [j % 3 for j in range(i % 4)],
            "messages": [{"role": ["user", "assistant"][j % 2], "content": f"turn {j} of {i}"} for j in range(1 + i % 3)],
            "pairs": [[j] * (j % 3) for j in range(i % 3)],
            "source": None if i % 6 == 5 else {"name": f"book {i % 2}", "page": None if i % 4 == 3 else i, "tags": ["a"] * (i % 2)},
            "more": {f"k{j}": j * i for j in range(i % 3)},
        }


def expected(row):
    """What a reader gets: the names of classes instead of their numbers."""
    row = dict(row)
    row["label"] = FEATURES["label"]["names"][row["label"]]
    row["tags"] = [FEATURES["tags"]["feature"]["names"][tag] for tag in row["tags"]]
    return row


def main():
    folder = fresh_folder("parquet_files")
    folder.mkdir()
    data = list(rows(60))
    table = pa.Table.from_pylist(data, SCHEMA)
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": FEATURES}})})
    files = {
        "plain": {"compression": "none", "use_dictionary": False},
        "snappy": {"compression": "snappy", "row_group_size": 25},
        "gzip": {"compression": "gzip", "data_page_version": "2.0", "data_page_size": 200},
        "zstd": {"compression": "zstd", "write_statistics": False},
    }
    for name, options in files.items():
        pq.write_table(table, folder / f"{name}.parquet", **options)
    deltas = {
        "text": "DELTA_BYTE_ARRAY",
        "long_text": "DELTA_LENGTH_BYTE_ARRAY",
        "label": "DELTA_BINARY_PACKED",
        "weight": "BYTE_STREAM_SPLIT",
    }
    pq.write_table(table, folder / "delta.parquet", use_dictionary=False, column_encoding=deltas, version="2.6")
    with open(folder / "rows.jsonl", "w", encoding="utf-8") as file:
        for row in data:
            file.write(json.dumps(expected(row), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
