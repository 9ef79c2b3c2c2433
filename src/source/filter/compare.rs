//! Compares a column with a value, type by type.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{Array, ArrayAccessor, ArrowPrimitiveType, AsArray, BooleanArray};
use arrow::compute::{cast, is_not_null, take};
use arrow::datatypes::*;
use arrow::error::ArrowError;
use half::f16;

use super::number::Number;
use super::parse::{Literal, Operator};
use super::place::{Place, Rule};
use super::time::{DAY, Time, nanoseconds};

/// Says for which values of a column a comparison holds; null for null.
pub(super) type Test = Arc<dyn Fn(&dyn Array) -> Result<BooleanArray, ArrowError> + Send + Sync>;

/// Makes the test that compares columns of this type with a value.
///
/// # Errors
/// The reason why there is none, with the remedy.
pub(super) fn test(data_type: &DataType, operator: Operator, literal: &Literal) -> Result<Test, String> {
    if !literal.quoted && literal.text.eq_ignore_ascii_case("null") {
        return Err("nothing equals null, and every comparison leaves nulls out; for the text write 'null'".into());
    }
    match data_type {
        DataType::Null => Ok(Arc::new(|column| Ok(BooleanArray::new_null(column.len())))),
        DataType::Dictionary(_, values) => dictionary(test(values, operator, literal)?),
        DataType::RunEndEncoded(_, values) => {
            let test = test(values.data_type(), operator, literal)?;
            let values = values.data_type().clone();
            Ok(Arc::new(move |column| test(&cast(column, &values)?)))
        }
        DataType::Boolean => boolean(operator, literal),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => text(data_type, operator, literal),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            bytes(data_type, operator, literal)
        }
        DataType::Float16 | DataType::Float32 | DataType::Float64 => floating(data_type, operator, literal),
        _ if data_type.is_numeric() => whole_or_decimal(data_type, operator, literal),
        _ if data_type.is_temporal() => temporal(data_type, operator, literal),
        _ => incomparable(),
    }
}

fn incomparable() -> Result<Test, String> {
    Err("such values cannot be compared; take another column".into())
}

fn whole_or_decimal(data_type: &DataType, operator: Operator, literal: &Literal) -> Result<Test, String> {
    match data_type {
        DataType::Int8 => multiple::<Int8Type>(operator, literal, 0),
        DataType::Int16 => multiple::<Int16Type>(operator, literal, 0),
        DataType::Int32 => multiple::<Int32Type>(operator, literal, 0),
        DataType::Int64 => multiple::<Int64Type>(operator, literal, 0),
        DataType::UInt8 => multiple::<UInt8Type>(operator, literal, 0),
        DataType::UInt16 => multiple::<UInt16Type>(operator, literal, 0),
        DataType::UInt32 => multiple::<UInt32Type>(operator, literal, 0),
        DataType::UInt64 => multiple::<UInt64Type>(operator, literal, 0),
        DataType::Decimal32(_, scale) => multiple::<Decimal32Type>(operator, literal, *scale),
        DataType::Decimal64(_, scale) => multiple::<Decimal64Type>(operator, literal, *scale),
        DataType::Decimal128(_, scale) => multiple::<Decimal128Type>(operator, literal, *scale),
        DataType::Decimal256(_, scale) => {
            Ok(primitive::<Decimal256Type>(number(literal)?.place(*scale).rule(operator)))
        }
        _ => incomparable(),
    }
}

fn floating(data_type: &DataType, operator: Operator, literal: &Literal) -> Result<Test, String> {
    match data_type {
        DataType::Float16 => float::<Float16Type>(operator, literal, (f16::MAX, f16::NEG_INFINITY), |text| {
            f64::from_str(text).ok().map(f16::from_f64)
        }),
        DataType::Float32 => {
            float::<Float32Type>(operator, literal, (f32::MAX, f32::NEG_INFINITY), |text| text.parse().ok())
        }
        _ => float::<Float64Type>(operator, literal, (f64::MAX, f64::NEG_INFINITY), |text| text.parse().ok()),
    }
}

fn temporal(data_type: &DataType, operator: Operator, literal: &Literal) -> Result<Test, String> {
    match data_type {
        DataType::Date32 => time::<Date32Type>(operator, Time::instant(&literal.text, None)?, DAY),
        DataType::Date64 => time::<Date64Type>(operator, Time::instant(&literal.text, None)?, MILLISECOND),
        DataType::Timestamp(unit, zone) => {
            let instant = Time::instant(&literal.text, zone.as_deref())?;
            match unit {
                TimeUnit::Second => time::<TimestampSecondType>(operator, instant, nanoseconds(*unit)),
                TimeUnit::Millisecond => time::<TimestampMillisecondType>(operator, instant, nanoseconds(*unit)),
                TimeUnit::Microsecond => time::<TimestampMicrosecondType>(operator, instant, nanoseconds(*unit)),
                TimeUnit::Nanosecond => time::<TimestampNanosecondType>(operator, instant, nanoseconds(*unit)),
            }
        }
        DataType::Time32(unit) => {
            let of_day = Time::of_day(&literal.text)?;
            match unit {
                TimeUnit::Second => time::<Time32SecondType>(operator, of_day, nanoseconds(*unit)),
                _ => time::<Time32MillisecondType>(operator, of_day, nanoseconds(*unit)),
            }
        }
        DataType::Time64(unit) => {
            let of_day = Time::of_day(&literal.text)?;
            match unit {
                TimeUnit::Microsecond => time::<Time64MicrosecondType>(operator, of_day, nanoseconds(*unit)),
                _ => time::<Time64NanosecondType>(operator, of_day, nanoseconds(*unit)),
            }
        }
        DataType::Duration(unit) => {
            let span = Time::span(&literal.text)?;
            match unit {
                TimeUnit::Second => time::<DurationSecondType>(operator, span, nanoseconds(*unit)),
                TimeUnit::Millisecond => time::<DurationMillisecondType>(operator, span, nanoseconds(*unit)),
                TimeUnit::Microsecond => time::<DurationMicrosecondType>(operator, span, nanoseconds(*unit)),
                TimeUnit::Nanosecond => time::<DurationNanosecondType>(operator, span, nanoseconds(*unit)),
            }
        }
        _ => incomparable(),
    }
}

/// Tests each value of a dictionary once, however many rows have it.
fn dictionary(test: Test) -> Result<Test, String> {
    Ok(Arc::new(move |column| {
        let dictionary = column.as_any_dictionary();
        let holds = take(&test(dictionary.values())?, dictionary.keys(), None)?;
        Ok(holds.as_boolean().clone())
    }))
}

fn boolean(operator: Operator, literal: &Literal) -> Result<Test, String> {
    let value = ["false", "true"].iter().position(|value| literal.text.eq_ignore_ascii_case(value));
    let value = value.ok_or("write true or false")? == 1;
    Ok(Arc::new(move |column| Ok(compare(column.as_boolean(), operator, value))))
}

fn text(data_type: &DataType, operator: Operator, literal: &Literal) -> Result<Test, String> {
    let of_equality = matches!(operator, Operator::Equal | Operator::NotEqual);
    if !literal.quoted && !of_equality && Number::parse(&literal.text).is_some() {
        return Err(format!("texts have no order of numbers; write '{}' for the order of texts", literal.text));
    }
    let value = literal.text.clone();
    Ok(match data_type {
        DataType::Utf8 => Arc::new(move |column| Ok(compare(column.as_string::<i32>(), operator, value.as_str()))),
        DataType::LargeUtf8 => Arc::new(move |column| Ok(compare(column.as_string::<i64>(), operator, value.as_str()))),
        _ => Arc::new(move |column| Ok(compare(column.as_string_view(), operator, value.as_str()))),
    })
}

fn bytes(data_type: &DataType, operator: Operator, literal: &Literal) -> Result<Test, String> {
    let value = literal.text.clone().into_bytes();
    Ok(match data_type {
        DataType::Binary => Arc::new(move |column| Ok(compare(column.as_binary::<i32>(), operator, &value[..]))),
        DataType::LargeBinary => Arc::new(move |column| Ok(compare(column.as_binary::<i64>(), operator, &value[..]))),
        DataType::BinaryView => Arc::new(move |column| Ok(compare(column.as_binary_view(), operator, &value[..]))),
        _ => Arc::new(move |column| Ok(compare(column.as_fixed_size_binary(), operator, &value[..]))),
    })
}

fn number(literal: &Literal) -> Result<Number, String> {
    Number::parse(&literal.text).ok_or_else(|| "write a number, as in 16 or -0.5".into())
}

/// Tests values that are multiples of 10^-scale.
fn multiple<T: ArrowPrimitiveType<Native: TryFrom<i128> + PartialOrd>>(
    operator: Operator,
    literal: &Literal,
    scale: i8,
) -> Result<Test, String> {
    let number = number(literal)?;
    let narrow = |multiple: i256| T::Native::try_from(multiple.to_i128()?).ok();
    Ok(primitive::<T>(number.place(scale).among(number.negative, narrow).rule(operator)))
}

/// Tests values that are multiples of `unit` nanoseconds.
fn time<T: ArrowPrimitiveType<Native: TryFrom<i128> + PartialOrd>>(
    operator: Operator,
    time: Time,
    unit: i128,
) -> Result<Test, String> {
    let place = time.place(unit).among(time.is_negative(), |multiple| T::Native::try_from(multiple).ok());
    Ok(primitive::<T>(place.rule(operator)))
}

/// Tests floats.
///
/// `most` is the largest finite value and `below` is less than all finite ones; `nearest` parses a number or `inf`.
fn float<T: ArrowPrimitiveType<Native: PartialOrd>>(
    operator: Operator,
    literal: &Literal,
    (most, below): (T::Native, T::Native),
    nearest: impl Fn(&str) -> Option<T::Native>,
) -> Result<Test, String> {
    let text = literal.text.as_str();
    let place = match Number::parse(text) {
        Some(number) => {
            let value = nearest(text).ok_or("write a number, as in 16 or -0.5")?;
            match (number.negative, value > most, value <= below) {
                // The number lies between the largest finite value and infinity.
                (false, true, _) => Place::Above(most),
                (true, _, true) => Place::Above(below),
                _ => Place::At(value),
            }
        }
        None if ["inf", "+inf", "-inf"].contains(&text.to_ascii_lowercase().as_str()) => {
            Place::At(nearest(text).ok_or("write a number, inf or -inf")?)
        }
        None if text.eq_ignore_ascii_case("nan") => {
            return Err("nothing equals NaN; `<= inf` leaves NaN out".into());
        }
        None => return Err("write a number, as in 16 or -0.5".into()),
    };
    Ok(primitive::<T>(place.rule(operator)))
}

fn primitive<T: ArrowPrimitiveType<Native: PartialOrd>>(rule: Rule<T::Native>) -> Test {
    match rule {
        Rule::Compare(operator, value) => {
            Arc::new(move |column| Ok(compare(column.as_primitive::<T>(), operator, value)))
        }
        Rule::Constant(true) => Arc::new(|column| is_not_null(column)),
        Rule::Constant(false) => Arc::new(|column| Ok(vec![false; column.len()].into())),
    }
}

/// Compares each value with `value`. Rust compares floats by IEEE 754, which Arrow's own kernels do not.
fn compare<A: ArrayAccessor<Item: PartialOrd + Copy>>(column: A, operator: Operator, value: A::Item) -> BooleanArray {
    match operator {
        Operator::Equal => BooleanArray::from_unary(column, |x| x == value),
        Operator::NotEqual => BooleanArray::from_unary(column, |x| x != value),
        Operator::Less => BooleanArray::from_unary(column, |x| x < value),
        Operator::AtMost => BooleanArray::from_unary(column, |x| x <= value),
        Operator::Greater => BooleanArray::from_unary(column, |x| x > value),
        Operator::AtLeast => BooleanArray::from_unary(column, |x| x >= value),
    }
}

/// Nanoseconds of a millisecond.
const MILLISECOND: i128 = 1_000_000;
