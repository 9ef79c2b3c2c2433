use rand::Rng;

use super::super::draw::mini_batches_per_epoch;
use super::super::weights::Weights;
use super::Strata;
use super::quotas::Quotas;
use crate::config::{Stop, WalkConfig};
use crate::sample::SampleId;

/// What a mini-batch takes of some samples.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::walk) struct Share {
    pub whose: Whose,
    /// How many samples it takes.
    pub places: usize,
    /// Whether they are drawn uniformly, whatever the sampler.
    pub is_uniform: bool,
    /// Those that come first: what is left of a pass over the stratum, after which another one begins.
    pub first: Vec<SampleId>,
}

/// The samples that a share is taken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::walk) enum Whose {
    All,
    /// Those of a stratum.
    Of(usize),
    /// Those of all other strata.
    NotOf(usize),
}

/// Decides what the mini-batches of an epoch take of each stratum.
///
/// Everything follows from settings, seed, the samples that remain, and the number of mini-batches that were drawn.
#[derive(Clone, Debug)]
pub(in crate::walk) struct Shares {
    rule: Rule,
    batch_size: usize,
    drop_last: bool,
    /// The fewest samples of a mini-batch.
    least: usize,
    /// The most mini-batches of the epoch.
    most: u64,
}

/// Where an epoch stands.
#[derive(Clone, Copy, Debug)]
pub(in crate::walk) struct Moment {
    pub epoch: u64,
    /// The step of the run that the next mini-batch belongs to.
    pub step: u64,
    /// How many mini-batches were drawn.
    pub drawn: u64,
}

#[derive(Clone, Debug)]
enum Rule {
    /// As weights say.
    Weighted(Quotas),
    /// One stratum a mini-batch, in proportion to what remains of those that make one.
    Single {
        /// What remains of each stratum that makes a mini-batch; `None` before the first one.
        weights: Option<Weights>,
        /// The stratum of the last mini-batch.
        last: usize,
    },
    /// So many samples of one stratum, and the others from elsewhere.
    Mostly(usize),
}

impl Shares {
    /// For an epoch over the first `samples`, of which `drawn` mini-batches were drawn, the next one at `step`. They
    /// have `least` samples at least, or two.
    pub fn new(strata: &Strata, config: &WalkConfig, samples: usize, at: Moment, least: usize) -> Self {
        let Moment { epoch, step, drawn } = at;
        let batch_size = config.batch_size.min(samples);
        let mostly = (config.same_share * batch_size as f64).round().max(1.0) as usize;
        let quotas = Quotas::new(strata, samples, batch_size, config.same.is_some(), epoch);
        let rule = match quotas {
            Some(quotas) => Rule::Weighted(quotas),
            None if mostly < batch_size => Rule::Mostly(mostly),
            None => Rule::Single { weights: None, last: 0 },
        };
        let mut shares = Self { rule, batch_size, drop_last: config.drop_last, least: least.max(2), most: 0 };
        shares.most = match &shares.rule {
            Rule::Weighted(quotas) => quotas.length(step - drawn, quotas.sizes()),
            Rule::Single { .. } => strata.sizes(samples).iter().map(|&size| shares.of_one(size)).sum(),
            Rule::Mostly(_) => mini_batches_per_epoch(samples, config),
        };
        if let Rule::Weighted(quotas) = &mut shares.rule {
            (step - drawn..step).for_each(|step| drop(quotas.next(step)));
        }
        shares
    }

    /// How many mini-batches so many samples of one stratum make.
    fn of_one(&self, samples: u64) -> u64 {
        let size = self.batch_size as u64;
        let rest = samples % size;
        samples / size + u64::from(!self.drop_last && rest >= self.least as u64)
    }

    /// How many mini-batches the epoch has at most, of which `drawn` are drawn and the next one is that of `step`, if
    /// so many samples are `left` of each stratum.
    pub fn mini_batches(&self, drawn: u64, step: u64, left: &[u64]) -> u64 {
        let more = match &self.rule {
            Rule::Weighted(quotas) if quotas.stop() == Stop::First => quotas.length(step, left),
            Rule::Single { .. } => left.iter().map(|&left| self.of_one(left)).sum(),
            Rule::Weighted(_) | Rule::Mostly(_) => return self.most,
        };
        self.most.min(drawn + more)
    }

    /// The shares of the mini-batch of `step`, after `drawn` others, if so many samples are `left` of each stratum;
    /// none at the end of the epoch. `any` is the stratum of a random sample that remains, if the rule
    /// [asks](Self::draws_from_all) for one.
    pub fn next(
        &mut self,
        drawn: u64,
        step: u64,
        left: &[u64],
        any: Option<usize>,
        generator: &mut impl Rng,
    ) -> Vec<Share> {
        if drawn >= self.most {
            return Vec::new();
        }
        let share = |whose, places, is_uniform| Share { whose, places, is_uniform, first: Vec::new() };
        match &mut self.rule {
            Rule::Weighted(quotas) => {
                let next = quotas.next(step);
                let is_short = |(quota, left): (&u64, &u64)| quota > left;
                if quotas.stop() == Stop::First && next.iter().zip(left).any(is_short) {
                    return Vec::new();
                }
                let taken = next.iter().enumerate().filter(|(_, quota)| **quota > 0);
                taken.map(|(stratum, &quota)| share(Whose::Of(stratum), quota as usize, false)).collect()
            }
            Rule::Single { weights, last } => {
                let least = if self.drop_last { self.batch_size } else { self.least } as u64;
                let weight = |stratum: usize| Some(left[stratum]).filter(|left| *left >= least).unwrap_or(0);
                let is_first = weights.is_none();
                let weights = weights.get_or_insert_with(|| Weights::zeros(left.len()));
                let changed = if is_first { 0..left.len() } else { *last..*last + 1 };
                changed.for_each(|stratum| weights.set(stratum, weight(stratum)));
                let Some(stratum) = weights.pick(generator) else { return Vec::new() };
                *last = stratum;
                vec![share(Whose::Of(stratum), self.batch_size.min(left[stratum] as usize), false)]
            }
            Rule::Mostly(places) => {
                let all: u64 = left.iter().sum();
                let size = self.batch_size.min(all as usize);
                let Some(stratum) = any.filter(|_| !self.drop_last || size == self.batch_size) else {
                    return Vec::new();
                };
                let of = (*places).min(size).min(left[stratum] as usize);
                let not_of = (size - of).min((all - left[stratum]) as usize);
                let shares = [
                    share(Whose::Of(stratum), of, false),
                    share(Whose::NotOf(stratum), not_of, true),
                    share(Whose::All, size - of - not_of, true),
                ];
                shares.into_iter().filter(|share| share.places > 0).collect()
            }
        }
    }

    /// Whether strata are passed through more than once.
    pub fn repeats(&self) -> bool {
        matches!(&self.rule, Rule::Weighted(quotas) if quotas.stop() == Stop::All)
    }

    /// Whether weights say how often samples come.
    pub fn is_weighted(&self) -> bool {
        matches!(self.rule, Rule::Weighted(_))
    }

    /// Forgets what does not follow from the samples that remain.
    pub fn forget_order(&mut self) {
        if let Rule::Single { weights, .. } = &mut self.rule {
            *weights = None;
        }
    }

    /// Whether samples are drawn from all strata at random too.
    pub fn draws_from_all(&self) -> bool {
        matches!(self.rule, Rule::Mostly(_))
    }

    /// The fewest samples of a mini-batch of `size`.
    pub fn least(&self, size: usize) -> usize {
        if self.drop_last { size } else { self.least.min(size) }
    }
}
