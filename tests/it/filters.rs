//! A filter keeps the rows for which its condition holds, by the meaning that the condition has in SQL and IEEE 754.

use std::sync::Arc;

use futures::TryStreamExt;
use half::f16;
use proptest::prelude::*;
use prosampler::arrow::array::*;
use prosampler::arrow::compute::concat_batches;
use prosampler::arrow::datatypes::*;
use prosampler::arrow::ipc::reader::FileReader;
use prosampler::config::SourceConfig;
use prosampler::error::{ColumnError, TooFewError};
use prosampler::source::{self, FilteredSource, MemorySource, Source};
use prosampler::{Error, Pipeline, Result};

use crate::support::{TestEncoder, assert_says, path, pipeline, rows};

const SIGNS: [&str; 6] = ["=", "!=", "<", "<=", ">", ">="];

/// Which rows of some record batches a condition keeps, by the column `row`.
fn kept(batches: &[RecordBatch], condition: &str) -> Result<Vec<i32>> {
    let filtered = FilteredSource::new(Box::new(MemorySource::new(batches.to_vec())?), condition)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let kept: Vec<_> = runtime.block_on(async { filtered.read(&["row".to_owned()])?.try_collect().await })?;
    let kept = concat_batches(&kept[0].schema(), &kept).unwrap();
    Ok(kept["row"].as_primitive::<Int32Type>().values().to_vec())
}

/// Values with their rows.
fn column(values: ArrayRef) -> RecordBatch {
    let rows: ArrayRef = Arc::new(Int32Array::from_iter_values(0..values.len() as i32));
    RecordBatch::try_from_iter_with_nullable([("row", rows, false), ("c", values, true)]).unwrap()
}

fn refusal(values: ArrayRef, condition: &str) -> String {
    kept(&[column(values)], condition).unwrap_err().to_string()
}

/// Conditions on every ordered type of Arrow's keep the right rows, of whole and of sliced record batches.
#[test]
fn conditions_keep_the_rows_that_duckdb_and_exact_arithmetic_keep() {
    let file = std::fs::File::open(path("tests/data/filters/rows.arrow")).unwrap();
    let whole: Vec<_> = FileReader::try_new(file, None).unwrap().map(std::result::Result::unwrap).collect();
    let pieces: Vec<_> = [(0, 3), (3, 1), (4, 4)].iter().map(|&(start, len)| whole[0].slice(start, len)).collect();
    let text = std::fs::read_to_string(path("tests/data/filters/kept.json")).unwrap();
    let cases: Vec<(String, String)> = serde_json::from_str(&text).unwrap();
    assert!(cases.len() > 3000);
    let mut wrong = Vec::new();
    for (condition, expected) in &cases {
        for batches in [&whole, &pieces] {
            let found: String = kept(batches, condition).unwrap().iter().map(i32::to_string).collect();
            if found != *expected {
                wrong.push(format!("{condition}: {found} instead of {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

fn holds<T: PartialOrd>(sign: usize, a: &T, b: &T) -> bool {
    [a == b, a != b, a < b, a <= b, a > b, a >= b][sign]
}

/// Numbers that are small as often as large.
fn mantissa() -> impl Strategy<Value = i128> {
    prop_oneof![-1300i128..1300, any::<i64>().prop_map(i128::from)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// For whole numbers and decimals of every width, both sides are brought to one denominator.
    #[test]
    fn numbers_are_compared_exactly(
        values in proptest::collection::vec(proptest::option::of(mantissa()), 1..80),
        (mantissa, places) in (mantissa(), 0u32..6),
        scale in 0i8..4, sign in 0usize..6,
    ) {
        let (size, unit, width) = (mantissa.unsigned_abs(), 10u128.pow(places), places as usize);
        let text = format!("{}{}.{:0width$}", if mantissa < 0 { "-" } else { "" }, size / unit, size % unit);
        let condition = format!("c {} {}", SIGNS[sign], text.trim_end_matches('.'));
        let exactly = |scale: i8, values: &[Option<i128>]| {
            // v / 10^scale against mantissa / 10^places.
            let holds = |v: i128| holds(sign, &(v * 10i128.pow(places)), &(mantissa * 10i128.pow(scale as u32)));
            (0..).zip(values).filter(|(_, v)| v.is_some_and(holds)).map(|(row, _)| row).collect::<Vec<i32>>()
        };
        macro_rules! whole { ($array:ty, $native:ty) => {{
            let values: Vec<_> = values.iter().map(|v| v.map(|v| v as $native)).collect();
            let array: ArrayRef = Arc::new(<$array>::from(values.clone()));
            let values: Vec<_> = values.iter().map(|v| v.map(|v| v as i128)).collect();
            let found = kept(&[column(array)], &condition).unwrap();
            prop_assert_eq!(found, exactly(0, &values), "{} {}", stringify!($array), condition);
        }} }
        whole!(Int8Array, i8);
        whole!(Int16Array, i16);
        whole!(Int32Array, i32);
        whole!(Int64Array, i64);
        whole!(UInt8Array, u8);
        whole!(UInt16Array, u16);
        whole!(UInt32Array, u32);
        whole!(UInt64Array, u64);
        macro_rules! decimal { ($array:ty, $precision:expr, $make:expr) => {{
            let values: Vec<_> = values.iter().map(|v| v.map(|v| v % 10i128.pow($precision.min(30)))).collect();
            let array = values.iter().map(|v| v.map($make)).collect::<$array>();
            let array: ArrayRef = Arc::new(array.with_precision_and_scale($precision as u8, scale).unwrap());
            let found = kept(&[column(array)], &condition).unwrap();
            prop_assert_eq!(found, exactly(scale, &values), "{} {}", stringify!($array), condition);
        }} }
        decimal!(Decimal32Array, 9u32, |v| v as i32);
        decimal!(Decimal64Array, 18u32, |v| v as i64);
        decimal!(Decimal128Array, 38u32, |v| v);
        decimal!(Decimal256Array, 76u32, i256::from_i128);
    }

    /// Floating-point numbers have any bits, also those of NaN, and values are written with as many digits as it takes.
    #[test]
    fn floats_are_compared_as_ieee_754_has_it(
        bits in proptest::collection::vec(proptest::option::of(any::<u64>()), 1..80),
        picked in any::<prop::sample::Index>(), same in any::<bool>(), other in any::<u64>(), sign in 0usize..6,
    ) {
        const ODD: [f64; 6] = [0.0, -0.0, f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
        let value = |bits: u64| if bits.is_multiple_of(3) { ODD[(bits / 3 % 6) as usize] } else { f64::from_bits(bits) };
        let values: Vec<_> = bits.iter().map(|bits| bits.map(value)).collect();
        let literal = if same { values[picked.index(values.len())].unwrap_or(1.5) } else { value(other) };
        let literal = if literal.is_nan() { 0.0 } else { literal };
        let condition = format!("c {} {literal:e}", SIGNS[sign]).replace("infe0", "inf");
        let rows = |holds: &dyn Fn(f64) -> bool| {
            (0..).zip(&values).filter(|(_, v)| v.is_some_and(holds)).map(|(row, _)| row).collect::<Vec<i32>>()
        };
        let array: ArrayRef = Arc::new(Float64Array::from(values.clone()));
        prop_assert_eq!(kept(&[column(array)], &condition).unwrap(), rows(&|v| holds(sign, &v, &literal)));
        // A finite value beyond the type's range is above or below all its finite numbers, but not infinity.
        let beyond = |to: f64| to.is_infinite() && literal.is_finite();
        let narrow = literal as f32;
        let array: ArrayRef = Arc::new(Float32Array::from_iter(values.iter().map(|v| v.map(|v| v as f32))));
        let expected = rows(&|v| match beyond(narrow.into()) {
            true => holds(sign, &f64::from(v as f32), &literal),
            false => holds(sign, &(v as f32), &narrow),
        });
        prop_assert_eq!(kept(&[column(array)], &condition).unwrap(), expected);
        let narrow = f16::from_f64(literal);
        let array: ArrayRef = Arc::new(Float16Array::from_iter(values.iter().map(|v| v.map(f16::from_f64))));
        let expected = rows(&|v| match beyond(narrow.into()) {
            true => holds(sign, &f64::from(f16::from_f64(v)), &literal),
            false => holds(sign, &f16::from_f64(v), &narrow),
        });
        prop_assert_eq!(kept(&[column(array)], &condition).unwrap(), expected);
    }
}

#[test]
fn values_that_cannot_be_compared_are_refused_with_the_remedy() {
    let number = || Arc::new(Int32Array::from(vec![1])) as ArrayRef;
    let text = || Arc::new(StringArray::from(vec!["1"])) as ArrayRef;
    let time = |zone: Option<&str>| {
        let array = TimestampSecondArray::from(vec![0]);
        Arc::new(zone.iter().fold(array.clone(), |_, zone| array.clone().with_timezone(*zone))) as ArrayRef
    };
    for (values, condition, expected) in [
        (number(), "c = many", "column `c` holds Int32, but the filter compares it with `many`: write a number"),
        (number(), "c = 1_000", "write a number"),
        (number(), "c = NULL", "nothing equals null"),
        (text(), "c = null", "for the text write 'null'"),
        (text(), "c < 7", "texts have no order of numbers; write '7' for the order of texts"),
        (Arc::new(Float32Array::from(vec![1.0])), "c = nan", "nothing equals NaN; `<= inf` leaves NaN out"),
        (Arc::new(BooleanArray::from(vec![true])), "c = 1", "write true or false"),
        (time(None), "c > 2020", "write a date or a date and a time, as in '2020-06-01'"),
        (time(None), "c > '2020-13-01'", "write a date"),
        (time(None), "c > '2020-01-01T00:00:00Z'", "the column has no time zone; leave that of the value out"),
        (time(Some("Mars/Olympus")), "c > '2020-01-01'", "`Mars/Olympus` is no time zone that is known here"),
        // Clocks were set forward, and back.
        (time(Some("Europe/Berlin")), "c > '2020-03-29 02:30:00'", "no such time in Europe/Berlin, or it comes twice"),
        (
            time(Some("Europe/Berlin")),
            "c > '2020-10-25 02:30:00'",
            "write its offset, as in '2020-10-25 02:30:00+01:00'",
        ),
        (Arc::new(Time32SecondArray::from(vec![1])), "c > '25:00:00'", "write a time of day"),
        (Arc::new(DurationSecondArray::from(vec![1])), "c > 5", "write whole numbers of units"),
        (Arc::new(DurationSecondArray::from(vec![1])), "c > '1 month'", "from weeks to nanoseconds"),
        (Arc::new(DurationSecondArray::from(vec![1])), "c > '1.5 seconds'", "write whole numbers of units"),
        (Arc::new(IntervalYearMonthArray::from(vec![1])), "c > '1 month'", "cannot be compared; take another column"),
        (Arc::new(StructArray::new_empty_fields(1, None)), "c = 1", "cannot be compared"),
    ] {
        assert_says(&refusal(values, condition), &["column `c` holds", "the filter compares it with", expected]);
    }
}

#[test]
fn a_time_that_comes_twice_is_told_apart_by_its_offset() {
    // These times are an hour apart from 01:00 in summer time on, so 02:00 comes twice.
    let array = TimestampSecondArray::from_iter_values((0..3).map(|hour| 1_603_580_400 + 3600 * hour));
    let batches = [column(Arc::new(array.with_timezone("Europe/Berlin")))];
    for (condition, expected) in [
        ("c = '2020-10-25 01:00:00'", vec![0]),
        ("c = '2020-10-25 02:00:00+02:00'", vec![1]),
        ("c = '2020-10-25 02:00:00 +01:00'", vec![2]),
        ("c >= '2020-10-25T00:00:00Z'", vec![1, 2]),
        ("c < '2020-10-25 03:00:00'", vec![0, 1, 2]),
    ] {
        assert_eq!(kept(&batches, condition).unwrap(), expected, "{condition}");
    }
}

/// A filter that keeps too few rows is named as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_keeps_no_row_is_named_with_the_remedy() {
    let run = async |filter: &str| {
        let source = FilteredSource::new(Box::new(crate::support::source(100)), filter).unwrap();
        Pipeline::builder().source(source).encoder(TestEncoder::new(100)).start().await.unwrap_err()
    };
    let error = run("n < 0").await;
    assert!(
        matches!(&error, Error::TooFew(TooFewError::Samples { found: 0, filter: Some(filter), .. }) if filter == "n < 0")
    );
    assert_says(&error.to_string(), &["`memory` has 0 rows for which `n < 0` holds", "change the filter"]);
    assert_says(&run("n < 1").await.to_string(), &["has 1 row for which `n < 1` holds", "widen the filter"]);
    assert_says(&run("n < 9").await.to_string(), &["has 9 rows for which `n < 9` holds", "widen the filter"]);
    // The setting gives the same error.
    let uri = vec![path("data/wordnet/glosses.parquet").display().to_string()];
    let config = SourceConfig { uri, filter: Some("label = 'none'".into()), ..SourceConfig::default() };
    assert_eq!(source::open(&config).await.unwrap().filter(), Some("label = 'none'"));
}

/// A file may have two columns of one name if neither is used; each use of the name is refused.
#[tokio::test(flavor = "multi_thread")]
async fn two_columns_of_one_name_are_refused_where_the_name_is_used() {
    let batch = rows(300);
    let twin = |n: u32| Arc::new(UInt32Array::from_iter_values((0..300).map(|i| i * n))) as ArrayRef;
    let fields = [batch.schema().field(0).clone(), batch.schema().field(1).clone()];
    let twins = [1, 2].map(|_| Field::new("twin", DataType::UInt32, true));
    let schema = Arc::new(Schema::new(fields.into_iter().chain(twins).collect::<Vec<_>>()));
    let columns = vec![batch["n"].clone(), batch["text"].clone(), twin(1), twin(2)];
    let batch = RecordBatch::try_new(schema, columns).unwrap();
    let source = || MemorySource::new(vec![batch.clone()]).unwrap();
    let is_refused = |error: Error| {
        assert!(
            matches!(&error, Error::Column(ColumnError::Ambiguous { column, count: 2, .. }) if column == "twin"),
            "{error:?}"
        );
        assert_says(&error.to_string(), &["`memory` has 2 columns named `twin`", "rename them"]);
    };
    let used = async |change: &dyn Fn(prosampler::PipelineBuilder) -> prosampler::PipelineBuilder| {
        let builder = pipeline(300, 16).source(source()).columns(["n", "text"]);
        change(builder).start().await.map(drop)
    };
    used(&|builder| builder).await.unwrap();
    is_refused(used(&|builder| builder.columns(["n", "twin"])).await.unwrap_err());
    let distinct = prosampler::config::GuardsConfig { distinct: vec!["twin".into()], ..Default::default() };
    is_refused(used(&|builder| builder.guards(distinct.clone())).await.unwrap_err());
    is_refused(FilteredSource::new(Box::new(source()), "twin = 1").map(drop).unwrap_err());
    is_refused(source().read(&["twin".to_owned()]).map(drop).unwrap_err());
    // If no columns are named, all are carried.
    let all = pipeline(300, 16).source(source()).start().await.map(drop).unwrap_err();
    is_refused(all);
}
