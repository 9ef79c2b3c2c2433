use super::parse::Operator;

/// Where a value lies among those that a column can hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Place<N> {
    /// It is one of them.
    At(N),
    /// It is above this one, and below the next.
    Above(N),
    /// It is below them all.
    BelowAll,
    /// It is above them all.
    AboveAll,
}

/// A comparison, of values that the column can hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Rule<N> {
    Compare(Operator, N),
    /// It comes out the same for each of them.
    Constant(bool),
}

impl<N> Place<N> {
    /// The same among fewer values: those that `narrow` gives something for, which are in a row.
    pub fn among<M>(self, negative: bool, narrow: impl Fn(N) -> Option<M>) -> Place<M> {
        let beyond = if negative { Place::BelowAll } else { Place::AboveAll };
        match self {
            Self::At(value) => narrow(value).map_or(beyond, Place::At),
            Self::Above(value) => narrow(value).map_or(beyond, Place::Above),
            Self::BelowAll => Place::BelowAll,
            Self::AboveAll => Place::AboveAll,
        }
    }

    /// What comparing a value of the column with it comes down to.
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
