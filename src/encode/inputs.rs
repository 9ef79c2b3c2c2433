//! Matches what a model declares with what a feature gives.

use half::f16;
use ort::value::{DynValue, TensorElementType, ValueType};

use super::transfer::Transfer;
use crate::error::quoted;

/// An input that a model declares.
#[derive(Clone, Debug)]
pub(super) struct Declared {
    pub name: String,
    /// `None` for a type that no feature gives.
    element: Option<Element>,
    /// Its dimensions; negative where they are open.
    pub shape: Vec<i64>,
    /// In words, for messages.
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    I64,
    I32,
    Bool,
    F32,
    F16,
}

/// Numbers for one input.
#[derive(Clone, Debug)]
pub(super) struct Input {
    pub name: String,
    pub shape: Vec<usize>,
    pub numbers: Numbers,
}

/// Whole numbers fit inputs of any type, fractions only those of f32 and f16.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Numbers {
    Whole(Vec<i64>),
    Fractions(Vec<f32>),
}

impl Numbers {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Whole(numbers) => numbers.len(),
            Self::Fractions(numbers) => numbers.len(),
        }
    }

    /// Takes in more, and then zeros up to a length. Whole numbers become fractions where the others are.
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

/// What a feature gives.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub name: String,
    /// In words: `int64 [batch, sequence]`.
    pub text: &'static str,
    /// Whether it is whole numbers only.
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
        let (element, shape) = match dtype {
            ValueType::Tensor { ty, shape, .. } => (Element::of(*ty), shape.to_vec()),
            _ => (None, Vec::new()),
        };
        Self { name: name.to_owned(), element, shape, text: format!("{name}: {dtype}") }
    }

    /// Whether fractions fit.
    pub fn takes_fractions(&self) -> bool {
        matches!(self.element, Some(Element::F32 | Element::F16))
    }

    /// A dimension, where the model fixes it.
    pub fn dimension(&self, axis: usize) -> Option<usize> {
        self.shape.get(axis).and_then(|&d| usize::try_from(d).ok())
    }

    /// Why one of these numbers is beyond the declared type.
    pub fn refuses(&self, numbers: &Numbers) -> Option<String> {
        let beyond = |number: &dyn std::fmt::Display, bits| {
            Some(format!("has {number}, which does not fit the {bits} bits of the model's input `{}`", self.name))
        };
        match (numbers, self.element?) {
            (Numbers::Whole(numbers), Element::I32) => {
                beyond(numbers.iter().find(|n| i32::try_from(**n).is_err())?, 32)
            }
            (Numbers::Whole(numbers), Element::F16) => {
                beyond(numbers.iter().find(|n| n.unsigned_abs() > F16_MAX as u64)?, 16)
            }
            (Numbers::Fractions(numbers), Element::F16) => beyond(numbers.iter().find(|x| x.abs() > F16_MAX)?, 16),
            _ => None,
        }
    }

    /// The numbers in the declared type; the outer error says why they do not fit.
    pub fn value(&self, input: Input, transfer: &Transfer) -> Result<ort::Result<DynValue>, String> {
        let Input { name, shape, numbers } = input;
        Ok(match (numbers, self.element) {
            (Numbers::Whole(numbers), Some(Element::I64)) => transfer.tensor(shape, numbers),
            (Numbers::Whole(numbers), Some(Element::I32)) => {
                let narrow = |&n: &i64| {
                    i32::try_from(n)
                        .map_err(|_| format!("declares `{name}` as int32, but the data hold {n}; export it with int64"))
                };
                let numbers = numbers.iter().map(narrow).collect::<Result<Vec<_>, _>>()?;
                transfer.tensor(shape, numbers)
            }
            (Numbers::Whole(numbers), Some(Element::Bool)) => {
                transfer.tensor(shape, numbers.iter().map(|&n| n != 0).collect::<Vec<_>>())
            }
            (Numbers::Whole(numbers), Some(Element::F32)) => {
                transfer.tensor(shape, numbers.iter().map(|&n| n as f32).collect::<Vec<_>>())
            }
            (Numbers::Whole(numbers), Some(Element::F16)) => {
                let numbers: Vec<_> = numbers.iter().map(|&n| f16::from_f32(n as f32)).collect();
                transfer.tensor(shape, numbers)
            }
            (Numbers::Fractions(numbers), Some(Element::F32)) => transfer.tensor(shape, numbers),
            (Numbers::Fractions(numbers), Some(Element::F16)) => {
                transfer.tensor(shape, numbers.into_iter().map(f16::from_f32).collect::<Vec<_>>())
            }
            (Numbers::Fractions(_), _) | (_, None) => return Err(self.unfit()),
        })
    }

    /// Why this input cannot take fractions.
    pub fn unfit(&self) -> String {
        format!("declares `{}`, but the data hold fractions; export it with float, or give whole numbers", self.text)
    }
}

impl Element {
    fn of(element: TensorElementType) -> Option<Self> {
        Some(match element {
            TensorElementType::Int64 => Self::I64,
            TensorElementType::Int32 => Self::I32,
            TensorElementType::Bool => Self::Bool,
            TensorElementType::Float32 => Self::F32,
            TensorElementType::Float16 => Self::F16,
            _ => return None,
        })
    }
}

/// The largest number in 16 bits.
const F16_MAX: f32 = 65_504.0;

/// Whether a feature of this `kind` gives all that is declared, and the model takes all that it must; else why not.
pub(super) fn check(kind: &str, declared: &[Declared], given: &[Given]) -> Result<(), String> {
    let fits = |input: &&Declared| {
        let offer = given.iter().find(|given| given.name == input.name);
        let whole = matches!(input.element, Some(Element::I64 | Element::I32 | Element::Bool));
        offer.is_some_and(|given| given.is_whole || !whole) && input.element.is_some()
    };
    let strangers: Vec<_> = declared.iter().filter(|input| !fits(input)).map(|input| &input.text).collect();
    let missing = |given: &&Given| given.is_required && !declared.iter().any(|input| input.name == given.name);
    let missing: Vec<_> = given.iter().filter(missing).map(|given| &given.name).collect();
    let complaint = match (&strangers[..], &missing[..]) {
        ([], []) => return Ok(()),
        ([], missing) => format!("declares no input {}", quoted(missing)),
        (strangers, _) => format!("declares {}, which {kind} does not give", quoted(strangers)),
    };
    let describe = |required: bool| -> Vec<String> {
        given.iter().filter(|g| g.is_required == required).map(|g| format!("`{}` {}", g.name, g.text)).collect()
    };
    let (must, may) = (describe(true).join(" and "), describe(false).join(", "));
    let may = if may.is_empty() { may } else { format!(" and, if it likes, {may}") };
    Err(format!("{complaint}; for {kind} it takes {must}{may}: export it with these names, or set encode.feature"))
}
