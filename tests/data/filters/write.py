"""Writes rows.arrow, a column of every type, and kept.json: conditions, each with the rows that others keep by it.

Texts, truth values and dictionaries are duckdb's, by the same condition as SQL; bytes, numbers and times are Python's,
whose fractions are exact. Where duckdb compares exactly, too, both must agree. It does not for floats, where NaN is its
largest number, nor where it rounds, and it lacks 16-bit floats and 256-bit decimals.

Needs duckdb, numpy, pyarrow, pytz, tzdata.
"""

import datetime as dt
import decimal
import json
import operator
import pathlib
from fractions import Fraction
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pyarrow as pa

HERE = pathlib.Path(__file__).parent
UTC = dt.UTC
EPOCH = dt.datetime(1970, 1, 1)
SIGNS = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
inf, nan = float("inf"), float("nan")


def ints(low, high):
    return [low, high, 0, 1, 2, 3, None, 100]


def moments(unit):
    """Counts of a unit since 1970, some before."""
    per = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    at = dt.datetime(2020, 6, 1, 0, 30)
    seconds = int((at - EPOCH).total_seconds())
    half = per // 2
    return [
        0,
        seconds * per,
        seconds * per + half,
        (seconds - 1800) * per,
        -1,
        -per * 86400,
        None,
        (seconds + 3600) * per,
    ]


D = decimal.Decimal
decimals = ["1.50", "1.51", "-1.50", "-1.51", "0.00", "99.99", None, "2.00"]
texts = ["a", "b", "", "it's", "7", "007", None, "日本"]
floats = [0.0, -0.0, 0.1, nan, inf, -inf, None, -1.5]
exact = {  # name: (arrow type, values as they are stored, their scale as a Fraction or None)
    **{f"i{n}": (pa.from_numpy_dtype(f"int{n}"), ints(-(2 ** (n - 1)), 2 ** (n - 1) - 1)) for n in (8, 16, 32, 64)},
    **{f"u{n}": (pa.from_numpy_dtype(f"uint{n}"), ints(0, 2**n - 1)) for n in (8, 16, 32, 64)},
}
arrays = {name: pa.array(values, data_type) for name, (data_type, values) in exact.items()}
numbers = {name: [None if v is None else Fraction(v) for v in values] for name, (_, values) in exact.items()}
for name, data_type in [
    ("d32", pa.decimal32(6, 2)),
    ("d64", pa.decimal64(12, 2)),
    ("d128", pa.decimal128(20, 2)),
    ("d256", pa.decimal256(60, 2)),
]:
    arrays[name] = pa.array([None if v is None else D(v) for v in decimals], data_type)
    numbers[name] = [None if v is None else Fraction(v) for v in decimals]
hundreds = [100, 1500, -1500, 0, None, 200, 2000, -100]
arrays["d_hundreds"] = pa.array([None if v is None else D(v) for v in hundreds], pa.decimal128(5, -2))
numbers["d_hundreds"] = [None if v is None else Fraction(v) for v in hundreds]
FLOATS = [("f16", pa.float16(), np.float16), ("f32", pa.float32(), np.float32), ("f64", pa.float64(), np.float64)]
for name, data_type, numpy in FLOATS:
    arrays[name] = pa.array([None if v is None else numpy(v) for v in floats], data_type)
stamps = {}
for unit in ("s", "ms", "us", "ns"):
    for zone in (None, "UTC", "Europe/Berlin", "+05:30"):
        name = f"t_{unit}" + ("" if zone is None else "_" + zone.split("/")[-1].replace("+", "").replace(":", ""))
        stamps[name] = (unit, zone)
        arrays[name] = pa.array(moments(unit), pa.timestamp(unit, zone))
arrays["date32"] = pa.array([0, 18414, 18415, -1, None, 1, 18413, 20000], pa.date32())
arrays["date64"] = pa.array(
    [0 if d is None else d * 86_400_000 for d in [0, 18414, 18415, -1, None, 1, 18413, 20000]], pa.date64()
)
day = [0, 1, 3600, 43200, 86399, None, 21600, 64800]
for unit, data_type in [
    ("s", pa.time32("s")),
    ("ms", pa.time32("ms")),
    ("us", pa.time64("us")),
    ("ns", pa.time64("ns")),
]:
    per = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    arrays[f"time_{unit}"] = pa.array([None if s is None else s * per for s in day], data_type)
    arrays[f"span_{unit}"] = pa.array([None if s is None else (s - 3600) * per for s in day], pa.duration(unit))
arrays["bool"] = pa.array([True, False, None, True, False, True, None, False])
for name, data_type in [("text", pa.string()), ("large_text", pa.large_string()), ("text_view", pa.string_view())]:
    arrays[name] = pa.array(texts, data_type)
for name, data_type in [("bytes", pa.binary()), ("large_bytes", pa.large_binary()), ("bytes_view", pa.binary_view())]:
    arrays[name] = pa.array([None if v is None else v.encode() for v in texts], data_type)
arrays["two_bytes"] = pa.array([b"ab", b"aa", b"b\0", b"\xff\xff", None, b"ab", b"  ", b"zz"], pa.binary(2))
arrays["dictionary"] = pa.array(texts).dictionary_encode()
arrays["dictionary_of_numbers"] = pa.array(ints(-5, 5)).dictionary_encode()
# A null among the values, and one among the keys.
arrays["dictionary_with_null"] = pa.DictionaryArray.from_arrays(
    pa.array([0, 1, 2, 0, None, 2, 1, 2], pa.int8()), pa.array(["a", None, "b"])
)
runs = ["a", "a", None, None, "b", "b", "b", "a"]
arrays["runs"] = pa.RunEndEncodedArray.from_arrays(pa.array([2, 4, 7, 8], pa.int32()), pa.array(["a", None, "b", "a"]))
arrays["runs_of_floats"] = pa.RunEndEncodedArray.from_arrays(
    pa.array([1, 4, 6, 8], pa.int16()), pa.array([-0.0, nan, None, 0.5])
)
arrays["nothing"] = pa.nulls(8)
plain = {  # what duckdb, or Python, sees
    "dictionary": texts,
    "dictionary_of_numbers": ints(-5, 5),
    "dictionary_with_null": ["a", None, "b", "a", None, "b", None, "b"],
    "runs": runs,
    "runs_of_floats": [-0.0, nan, nan, nan, None, None, 0.5, 0.5],
    "nothing": [None] * 8,
}


def keep(values, sign, value):
    return [row for row, v in enumerate(values) if v is not None and SIGNS[sign](v, value)]


cases = []


def case(column, literal, values, value):
    cases.extend((f"{column} {sign} {literal}", keep(values, sign, value)) for sign in SIGNS)


# Numbers, exactly.
for name, values in numbers.items():
    literals = [
        "0",
        "-0",
        "2",
        "2.0",
        "2.5",
        "-2.5",
        "1.5",
        "1.505",
        "-1.505",
        "1e3",
        "300",
        "-129",
        "255",
        "256",
        "4294967296",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "-1e30",
        "1e80",
        "1500",
        "1550",
        "-1500",
        "1.000000000000000000000000000000000000000000000001",
    ]
    for literal in literals:
        case(name, literal, values, Fraction(literal))
# Floats, as numpy compares them.
for name, _, numpy in FLOATS:
    values = [None if v is None else numpy(v) for v in floats]
    for literal in ["0", "-0.0", "0.1", "-1.5", "1e-30", "inf", "-inf"]:
        with np.errstate(all="ignore"):
            case(name, literal, values, numpy(literal))
    # Beyond the finite ones, and below infinity. Python compares a float with a decimal exactly.
    decimal.getcontext().traps[decimal.InvalidOperation] = False
    for literal in ["1e999", "-1e999"]:
        case(name, literal, [None if v is None else float(v) for v in values], D(literal))
case("runs_of_floats", "0", plain["runs_of_floats"], 0.0)
case("runs_of_floats", "0.5", plain["runs_of_floats"], 0.5)


def nanoseconds(moment):
    """Of an aware or naive time with up to 12 decimals of seconds, as a Fraction since 1970."""
    whole, _, rest = moment.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    parsed = dt.datetime.fromisoformat(whole + rest[len(digits) :])
    since = parsed - (EPOCH if parsed.tzinfo is None else EPOCH.replace(tzinfo=UTC))
    return (
        Fraction(since.days * 86400 + since.seconds) + Fraction(int(digits or 0), 10 ** len(digits))
    ) * 10**9, parsed


for name, (unit, zone) in stamps.items():
    per = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit]
    values = [None if v is None else Fraction(v * per) for v in moments(unit)]
    literals = [
        "1970-01-01",
        "2020-06-01",
        "2020-06-01 00:30:00",
        "2020-06-01T02:30:00",
        "2020-06-01 00:30:00.5",
        "2020-06-01 00:30:00.5001",
        "1969-12-31 23:59:59.999999999999",
        "2020-06-01 00:30:00.4999999999",
        "1969-12-31",
        "0001-01-01",
    ]
    if zone is not None:
        literals += ["2020-06-01T00:30:00Z", "2020-06-01 02:30:00+02:00", "2020-05-31T19:30:00.25-05:00"]
    for literal in literals:
        value, parsed = nanoseconds(literal)
        if zone is not None and parsed.tzinfo is None:
            offset = ZoneInfo(zone).utcoffset(parsed) if zone[0] != "+" else dt.timedelta(hours=5, minutes=30)
            value -= Fraction(round(offset.total_seconds())) * 10**9
        case(name, f"'{literal}'", values, value)
for name, per in [("date32", 86400 * 10**9), ("date64", 10**6)]:
    values = [
        None if v is None else Fraction(v * per)
        for v in arrays[name].cast(pa.int32() if name == "date32" else pa.int64()).to_pylist()
    ]
    for literal in ["1970-01-01", "2020-06-01", "2020-06-01 12:00:00", "1969-12-31 23:59:59.5"]:
        case(name, f"'{literal}'", values, nanoseconds(literal)[0])
for unit in ("s", "ms", "us", "ns"):
    values = [None if s is None else Fraction(s) for s in day]
    for literal, value in [
        ("06:00:00", 21600),
        ("12:00", 43200),
        ("00:00:01.0000000001", 1 + Fraction(1, 10**10)),
        ("00:00:00.5", Fraction(1, 2)),
    ]:
        case(f"time_{unit}", f"'{literal}'", values, Fraction(value))
    values = [None if s is None else Fraction(s - 3600) for s in day]
    for literal, value in [
        ("0 seconds", 0),
        ("1 hour", 3600),
        ("-1 hour", -3600),
        ("1 day", 86400),
        ("17 hours 500 milliseconds", 61200 + Fraction(1, 2)),
        ("-1 hour 1 microsecond", -3600 + Fraction(1, 10**6)),
    ]:
        case(f"span_{unit}", f"'{literal}'", values, Fraction(value))

# Where duckdb knows better than anyone: SQL.
database = duckdb.connect()
table = pa.table(
    {
        "row": range(8),
        **{
            n: pa.array(plain[n]) if n in plain else a
            for n, a in arrays.items()
            if n[:2] not in ("f1", "d3", "d6", "d2", "bi")
            and n not in ("d_hundreds", "nothing", "large_bytes", "bytes_view", "two_bytes")
        },
    }
)
table = table.append_column("bool_", arrays["bool"])
database.register("rows", table)


def sql(condition):
    return [row for (row,) in database.execute(f"select row from rows where {condition} order by row").fetchall()]


for name in ["text", "large_text", "text_view", "dictionary", "dictionary_with_null", "runs"]:
    for literal in ["'a'", "''", "'it''s'", "'b'", "'007'", "'日本'", "'0'"]:
        cases.extend((f"{name} {sign} {literal}", sql(f"{name} {sign} {literal}")) for sign in SIGNS)
for literal in ["'a'", "''", "'日本'"]:
    for name in ["bytes", "large_bytes", "bytes_view"]:
        case(name, literal, [None if v is None else v.encode() for v in texts], literal.strip("'").encode())
for literal in ["ab", "a", "abc", "  "]:
    case("two_bytes", f"'{literal}'", arrays["two_bytes"].to_pylist(), literal.encode())
for literal in ["true", "false", "TRUE"]:
    cases.extend((f"bool {sign} {literal}", sql(f"bool_ {sign} {literal}")) for sign in SIGNS)
for literal in ["2", "0", "2.5"]:
    cases.extend(
        (f"dictionary_of_numbers {sign} {literal}", sql(f"dictionary_of_numbers {sign} {literal}")) for sign in SIGNS
    )
cases.extend((f"nothing {sign} 'a'", []) for sign in SIGNS)
# And it agrees with Python on numbers and times.
agree = 0
for condition, kept in cases:
    name, _, literal = condition.split(" ", 2)
    # duckdb reads 1e3 as a double, has no integer beyond 128 bits, and cuts what a column's text would not hold.
    comparable = (
        name in ("i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "d128")
        and "e" not in literal
        and len(literal) < 19
    )
    comparable |= name in ("t_s", "t_ms", "t_us", "date32") and len(literal) <= 21
    if comparable:
        sql_rows = sql(condition.replace("'", "timestamp '", 1) if literal[0] == "'" else condition)
        assert sql_rows == kept, (condition, kept, sql_rows)
        agree += 1
assert agree > 500, agree
both = "i32 >= 0 and text != 'a' and f64 <= inf"
cases.append(
    (
        both,
        [
            row
            for row in range(8)
            if row in sql("i32 >= 0 and text != 'a'") and floats[row] is not None and floats[row] <= inf
        ],
    )
)

rows = pa.table({"row": pa.array(range(8), pa.int32()), **arrays})
with pa.ipc.new_file(str(HERE / "rows.arrow"), rows.schema) as writer:
    writer.write_table(rows)
lines = [json.dumps([condition, "".join(map(str, kept))], ensure_ascii=False) for condition, kept in cases]
(HERE / "kept.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")
print(len(cases), "conditions,", agree, "of them confirmed by duckdb", duckdb.__version__)
