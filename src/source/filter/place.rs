//! Comparisons with values that a column may not be able to hold.

use super::parse::Operator;

/// Where a value lies among the values that a column can hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Place<N> {
    /// The value is one of them.
    At(N),
    /// The value is above this one, and below the next.
    Above(N),
    /// The value is below all of them.
    BelowAll,
    /// The value is above all of them.
    AboveAll,
}

/// What a comparison with any value amounts to, for the values that a column can hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Rule<N> {
    /// A comparison with a value that the column can hold.
    Compare(Operator, N),
    /// The same result for all values.
    Constant(bool),
}

impl<N> Place<N> {
    /// Places the value among fewer values: the contiguous range for which `narrow` returns something.
    ///
    /// A value outside the range is below all if `negative`, else above all.
    pub fn among<M>(self, negative: bool, narrow: impl Fn(N) -> Option<M>) -> Place<M> {
        let beyond = if negative { Place::BelowAll } else { Place::AboveAll };
        match self {
            Self::At(value) => narrow(value).map_or(beyond, Place::At),
            Self::Above(value) => narrow(value).map_or(beyond, Place::Above),
            Self::BelowAll => Place::BelowAll,
            Self::AboveAll => Place::AboveAll,
        }
    }

    /// Reduces a comparison of the column's values with this one to a rule.
    pub fn rule(self, operator: Operator) -> Rule<N> {
        use Operator::{AtMost, Equal, Greater, Less, NotEqual};
        match (self, operator) {
            (Self::At(value), operator) => Rule::Compare(operator, value),
            (_, Equal) => Rule::Constant(false),
            (_, NotEqual) => Rule::Constant(true),
            (Self::Above(value), Less | AtMost) => Rule::Compare(AtMost, value),
            (Self::Above(value), _) => Rule::Compare(Greater, value),
            (Self::BelowAll, operator) => Rule::Constant(!matches!(operator, Less | AtMost)),
            (Self::AboveAll, operator) => Rule::Constant(matches!(operator, Less | AtMost)),
        }
    }
}
