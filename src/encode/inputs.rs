//! Matches the inputs that a model declares with those that a feature gives.

use half::{bf16, f16};
use ort::value::{DynValue, TensorElementType as Element, ValueType};

use super::transfer::Transfer;
use crate::error::quoted;

/// An input or output that a model declares.
#[derive(Clone, Debug)]
pub(super) struct Declared {
    pub name: String,
    /// The type of the numbers; `None` for anything but a tensor of numbers or booleans.
    element: Option<Element>,
    /// The dimensions; an open one is negative.
    pub shape: Vec<i64>,
    /// The names of the open dimensions; empty for one without a name.
    pub symbols: Vec<String>,
    /// The declaration in words, for messages.
    pub text: String,
}

/// The numbers of one input, row-major.
#[derive(Clone, Debug)]
pub(super) struct Input {
    pub name: String,
    pub shape: Vec<usize>,
    pub numbers: Numbers,
}

/// Numbers of an input. Whole numbers fit inputs of any type, fractions those of floating-point types only.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Numbers {
    Whole(Vec<i64>),
    Fractions(Vec<f32>),
}

impl Numbers {
    /// Returns how many numbers there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Whole(numbers) => numbers.len(),
            Self::Fractions(numbers) => numbers.len(),
        }
    }

    /// Converts all numbers to fractions.
    fn fractions(self) -> Vec<f32> {
        match self {
            Self::Whole(numbers) => numbers.into_iter().map(|n| n as f32).collect(),
            Self::Fractions(numbers) => numbers,
        }
    }

    /// Appends the last `width` numbers `times` more times.
    fn repeat_last(&mut self, width: usize, times: usize) {
        let start = self.len() - width;
        match self {
            Self::Whole(numbers) => (0..times).for_each(|_| numbers.extend_from_within(start..start + width)),
            Self::Fractions(numbers) => (0..times).for_each(|_| numbers.extend_from_within(start..start + width)),
        }
    }

    /// Appends more numbers, and zeros up to the length `end`. If either are fractions, all become fractions.
    pub fn append(&mut self, more: Self, end: usize) {
        match (self, more) {
            (Self::Whole(numbers), Self::Whole(more)) => {
                numbers.extend(more);
                numbers.resize(end, 0);
            }
            (Self::Fractions(numbers), more) => {
                match more {
                    Self::Whole(more) => numbers.extend(more.iter().map(|&n| n as f32)),
                    Self::Fractions(more) => numbers.extend(more),
                }
                numbers.resize(end, 0.0);
            }
            (numbers @ Self::Whole(_), more) => {
                let whole = std::mem::replace(numbers, Self::Fractions(Vec::new()));
                let so_far = whole.len();
                numbers.append(whole, so_far);
                numbers.append(more, end);
            }
        }
    }
}

/// An input that a feature gives.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub name: String,
    /// Its type and shape in words: `int64 [batch, sequence]`. Empty if messages need not name it.
    pub text: &'static str,
    /// Whether all its numbers are whole.
    pub is_whole: bool,
    /// Whether the model must take it.
    pub is_required: bool,
}

impl Given {
    pub fn new(name: impl Into<String>, text: &'static str, is_whole: bool, is_required: bool) -> Self {
        Self { name: name.into(), text, is_whole, is_required }
    }
}

impl Declared {
    pub fn new(name: &str, dtype: &ValueType) -> Self {
        let (element, shape, symbols) = match dtype {
            ValueType::Tensor { ty, shape, dimension_symbols } => {
                (supported(*ty), shape.to_vec(), dimension_symbols.to_vec())
            }
            _ => (None, Vec::new(), Vec::new()),
        };
        Self { name: name.to_owned(), element, shape, symbols, text: format!("{name}: {dtype}") }
    }

    /// Returns the name without the `:0` that TensorFlow adds.
    pub fn base_name(&self) -> &str {
        self.name.strip_suffix(":0").unwrap_or(&self.name)
    }

    /// Whether it has this name, with or without `:0`.
    pub fn is(&self, name: &str) -> bool {
        self.name == name || self.base_name() == name
    }

    /// Whether it is a tensor of numbers.
    pub fn is_numeric(&self) -> bool {
        self.element.is_some_and(|element| element != Element::Bool)
    }

    /// Whether its type is a floating-point type.
    pub fn takes_fractions(&self) -> bool {
        matches!(self.element, Some(Element::Float32 | Element::Float16 | Element::Bfloat16 | Element::Float64))
    }

    /// Returns a dimension, if the model fixes it.
    pub fn dimension(&self, axis: usize) -> Option<usize> {
        self.shape.get(axis).and_then(|&d| usize::try_from(d).ok())
    }

    /// Returns the reason if one of these numbers is out of the range of the declared type.
    pub fn refuses(&self, numbers: &Numbers) -> Option<String> {
        let beyond = |number: &dyn std::fmt::Display, bits| {
            Some(format!("has {number}, which does not fit the {bits} bits of the model's input `{}`", self.name))
        };
        let whole = |numbers: &[i64], range: std::ops::RangeInclusive<i64>, bits| {
            beyond(numbers.iter().find(|n| !range.contains(n))?, bits)
        };
        match (numbers, self.element?) {
            (Numbers::Whole(numbers), Element::Int32) => whole(numbers, i32::MIN.into()..=i32::MAX.into(), 32),
            (Numbers::Whole(numbers), Element::Int16) => whole(numbers, i16::MIN.into()..=i16::MAX.into(), 16),
            (Numbers::Whole(numbers), Element::Int8) => whole(numbers, i8::MIN.into()..=i8::MAX.into(), 8),
            (Numbers::Whole(numbers), Element::Uint8) => whole(numbers, 0..=u8::MAX.into(), 8),
            (Numbers::Whole(numbers), Element::Float16) => {
                beyond(numbers.iter().find(|n| n.unsigned_abs() > F16_MAX as u64)?, 16)
            }
            (Numbers::Fractions(numbers), Element::Float16) => beyond(numbers.iter().find(|x| x.abs() > F16_MAX)?, 16),
            _ => None,
        }
    }

    /// Converts numbers to the declared type. The outer error is the reason why they do not fit.
    pub fn value(&self, input: Input, transfer: &Transfer) -> Result<ort::Result<DynValue>, String> {
        let Input { shape, numbers, .. } = input;
        Ok(match (numbers, self.element) {
            (Numbers::Whole(numbers), Some(Element::Int64)) => transfer.tensor(shape, numbers),
            (Numbers::Whole(numbers), Some(Element::Int32)) => transfer.tensor(shape, self.narrow::<i32>(&numbers)?),
            (Numbers::Whole(numbers), Some(Element::Int16)) => transfer.tensor(shape, self.narrow::<i16>(&numbers)?),
            (Numbers::Whole(numbers), Some(Element::Int8)) => transfer.tensor(shape, self.narrow::<i8>(&numbers)?),
            (Numbers::Whole(numbers), Some(Element::Uint8)) => transfer.tensor(shape, self.narrow::<u8>(&numbers)?),
            (Numbers::Whole(numbers), Some(Element::Bool)) => {
                transfer.tensor(shape, numbers.iter().map(|&n| n != 0).collect::<Vec<_>>())
            }
            (Numbers::Whole(numbers), Some(Element::Float64)) => {
                transfer.tensor(shape, numbers.iter().map(|&n| n as f64).collect::<Vec<_>>())
            }
            (Numbers::Fractions(numbers), Some(Element::Float64)) => {
                transfer.tensor(shape, numbers.into_iter().map(f64::from).collect::<Vec<_>>())
            }
            (numbers, Some(Element::Float32)) => transfer.tensor(shape, numbers.fractions()),
            (numbers, Some(Element::Float16)) => {
                transfer.tensor(shape, numbers.fractions().into_iter().map(f16::from_f32).collect::<Vec<_>>())
            }
            (numbers, Some(Element::Bfloat16)) => {
                transfer.tensor(shape, numbers.fractions().into_iter().map(bf16::from_f32).collect::<Vec<_>>())
            }
            _ => return Err(self.unfit()),
        })
    }

    /// Converts whole numbers to a narrower type.
    fn narrow<T: TryFrom<i64>>(&self, numbers: &[i64]) -> Result<Vec<T>, String> {
        let narrow = |&n: &i64| {
            T::try_from(n).map_err(|_| format!("declares `{}`, but the data hold {n}; export it with int64", self.text))
        };
        numbers.iter().map(narrow).collect()
    }

    /// Returns the reason why this input cannot take fractions.
    pub fn unfit(&self) -> String {
        format!("declares `{}`, but the data hold fractions; export it with float, or give whole numbers", self.text)
    }
}

/// Returns the type if its numbers can be converted here.
fn supported(element: Element) -> Option<Element> {
    use Element::{Bfloat16, Bool, Float16, Float32, Float64, Int8, Int16, Int32, Int64, Uint8};
    let types = [Float32, Float16, Bfloat16, Float64, Int64, Int32, Int16, Int8, Uint8, Bool];
    types.contains(&element).then_some(element)
}

/// Pads inputs of `rows` rows to `wanted` rows with copies of the last one, for models with a fixed batch size.
pub(super) fn pad_rows(inputs: &mut [Input], declared: &[Declared], rows: usize, wanted: usize) {
    for input in inputs {
        let declared = declared.iter().find(|declared| declared.is(&input.name));
        let is_fixed = declared.is_some_and(|declared| declared.dimension(0).is_some_and(|n| n != wanted));
        if input.shape.first() == Some(&rows) && !is_fixed {
            input.numbers.repeat_last(input.numbers.len() / rows, wanted - rows);
            input.shape[0] = wanted;
        }
    }
}

/// The largest finite f16.
const F16_MAX: f32 = 65_504.0;

/// Checks that a feature gives all inputs that the model declares, and that the model takes all required ones.
///
/// # Errors
/// The reason, which names the feature's `kind`.
pub(super) fn check(kind: &str, declared: &[Declared], given: &[Given]) -> Result<(), String> {
    let fits = |input: &&Declared| {
        let offer = given.iter().find(|given| input.is(&given.name));
        offer.is_some_and(|given| given.is_whole || input.takes_fractions()) && input.element.is_some()
    };
    let strangers: Vec<_> = declared.iter().filter(|input| !fits(input)).map(|input| &input.text).collect();
    let missing = |given: &&Given| given.is_required && !declared.iter().any(|input| input.is(&given.name));
    let missing: Vec<_> = given.iter().filter(missing).map(|given| &given.name).collect();
    let complaint = match (&strangers[..], &missing[..]) {
        ([], []) => return Ok(()),
        ([], missing) => format!("declares no input {}", quoted(missing)),
        (strangers, _) => format!("declares {}, which {kind} does not give", quoted(strangers)),
    };
    let describe = |required: bool| -> Vec<String> {
        let described = given.iter().filter(|g| g.is_required == required && !g.text.is_empty());
        described.map(|g| format!("`{}` {}", g.name, g.text)).collect()
    };
    let must = describe(true).join(" and ");
    let may = describe(false).join(", ");
    let may = if may.is_empty() { may } else { format!(" and, if it likes, {may}") };
    Err(format!("{complaint}; for {kind} it takes {must}{may}: export it with these names, or set encode.feature"))
}
