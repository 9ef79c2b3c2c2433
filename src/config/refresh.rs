use serde::Deserialize;

use super::check::{Check, Checker};

/// `[refresh]`: when embeddings and graph are made anew, in the background.
///
/// Any of the triggers starts a refresh. While one is under way, each kind of trigger that fires starts one more after
/// it, however often it fires; each call of `refresh_now` has its own. Without a trigger, the first graph stays.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct RefreshConfig {
    /// Trigger: this many more mini-batches have been delivered (t in the paper); at least 1. Default: none.
    pub every_steps: Option<u64>,
    /// Trigger: this much time has passed since the last refresh began, in seconds, more than 0. Default: none.
    pub every_seconds: Option<f64>,
    /// Trigger: a file of the model (external data and targets of links included) has changed, and all of them have
    /// stopped changing for half a second. They are checked once a second, and at once if the system reports a change.
    /// Default false.
    pub watch_model: bool,
    /// Trigger: mini-batches of the graph have become easier by this share, above 0 and below 1, as far as the vectors
    /// tell that the trainer [pushes](crate::refresh::RefreshHandle::push_embeddings). Default: none; 0.15 is cautious.
    ///
    /// The mean similarity among pushed vectors, divided by that of their mini-batch by the graph's embeddings, is
    /// taken over 16 mini-batches: the last ones and the first ones of the graph. A refresh begins when it has fallen
    /// by this share, as Conan-Embedding (arXiv 2408.15710) replaces negatives whose score has. Push the vectors of
    /// each mini-batch in one call, after its delivery. Where similarities are not above 0 on average it never fires.
    /// Touch it instead of `every_steps` if you do not know how often to refresh. A resumed run begins to compare anew.
    pub when_easier: Option<f64>,
    /// Share of the compute threads that a refresh may use, above 0 and at most 1, at least one thread; default 1. The
    /// threads give way to all others of the machine in any case (on Linux).
    pub cpu_share: f64,
    /// Share of the time in which a refresh may keep a GPU busy, above 0 and at most 1; default 1. Below 1 each batch,
    /// and each launch of the graph, is followed by a rest in proportion, for a trainer on the same GPU: with 0.25,
    /// three times as long as it took. This holds for each session. The first embeddings and graph, which a trainer
    /// waits for, do not rest.
    pub gpu_share: f64,
    /// Samples that a newer model embeds first, to see how far it has drifted; 2 to 8,192, default 256. A data set with
    /// fewer is embedded whole.
    pub probe: usize,
    /// A newer model whose vectors for the probe have turned by less than this on average (1 − cosine, 0 to 2) is not
    /// used: the refresh is skipped, and counted. Default 0: every newer model is.
    pub min_drift: f64,
    /// What becomes of a refresh whose model is overtaken by a newer one. Default `finish`.
    pub on_newer_model: OnNewerModel,
    /// What a failed refresh means for the run; the old graph stays in either case. Default `keep`.
    pub on_error: OnRefreshError,
    /// With `on_error = "fail"`: how many refreshes must fail in a row for the run to fail; at least 1, default 1.
    pub max_failures: u32,
    /// When the first embeddings and graph are made in a run that begins with a [`walk.warm_up`](super::WarmUp).
    /// Default `start`. Without a warm-up they are made before the first mini-batch in any case.
    pub first: FirstRefresh,
    /// Whether the stream waits for the first graph once the warm-up is over. Default true. If false, mini-batches stay
    /// uniform until it is there: the trainer never waits, and no two runs are alike.
    pub wait_for_first: bool,
    /// The graph of a refresh that begins at step s is used from exactly step s + `swap_after_steps` on, and the stream
    /// waits for it if it must: what a run yields then depends on no clock, if `every_steps` is the only trigger.
    /// Default: none, and a graph is used as soon as it is ready, and never waited for. With several ranks, which must
    /// change graphs together: half of `every_steps`, or 100 if `every_seconds`, `watch_model` or `when_easier` is a
    /// trigger.
    pub swap_after_steps: Option<u64>,
}

impl RefreshConfig {
    /// Whether a trigger may fire at another step on each rank.
    pub(crate) fn is_by_clock(&self) -> bool {
        self.every_seconds.is_some() || self.watch_model || self.when_easier.is_some()
    }

    /// These settings with the default of `swap_after_steps` for so many processes that refresh alike.
    pub(super) fn for_ranks(self, ranks: usize) -> Self {
        let default = match self.every_steps {
            _ if ranks == 1 => None,
            _ if self.is_by_clock() => Some(SWAP_BY_CLOCK),
            every => every.map(|every| (every / 2).max(1)),
        };
        Self { swap_after_steps: self.swap_after_steps.or(default), ..self }
    }
}

/// `swap_after_steps` of ranks that refresh by the clock.
const SWAP_BY_CLOCK: u64 = 100;

/// When the first embeddings and graph of a run with a warm-up are made. Training begins at once in either case.
///
/// If they cannot be made, the run ends with that error, whatever `on_error` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirstRefresh {
    /// In the background from the start on, with the model as it is then.
    #[default]
    Start,
    /// When the trainer asks for the first mini-batch after the warm-up, or at the first call of
    /// [`refresh_now`](crate::refresh::RefreshHandle::refresh_now) before: with the model and the pushed vectors of
    /// then. The stream waits meanwhile, see [`wait_for_first`](RefreshConfig::wait_for_first).
    AfterWarmUp,
}

/// What becomes of a refresh whose model is overtaken by a newer one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnNewerModel {
    /// It runs to its end, and one with the newest model begins then: graphs come at a steady pace.
    #[default]
    Finish,
    /// It is cancelled, and one with the newest model begins: for models that change less often than a refresh takes.
    Restart,
}

/// What a failed refresh means for the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnRefreshError {
    /// It goes on with the old graph; the failure is logged and counted.
    #[default]
    Keep,
    /// It ends with that error after `max_failures` in a row.
    Fail,
}

impl Default for RefreshConfig {
    fn default() -> Self {
        Self {
            every_steps: None,
            every_seconds: None,
            watch_model: false,
            when_easier: None,
            cpu_share: 1.0,
            gpu_share: 1.0,
            probe: 256,
            min_drift: 0.0,
            on_newer_model: OnNewerModel::Finish,
            on_error: OnRefreshError::Keep,
            max_failures: 1,
            first: FirstRefresh::Start,
            wait_for_first: true,
            swap_after_steps: None,
        }
    }
}

impl Check for RefreshConfig {
    const SECTION: &'static str = "refresh";

    fn check(&self, check: &mut Checker<'_>) {
        check.require(self.every_steps != Some(0), "every_steps", "must be at least 1; leave it out for no refresh");
        let seconds = self.every_seconds.is_none_or(|s| s > 0.0 && s.is_finite());
        check.require(seconds, "every_seconds", "must be more than 0; leave it out for no refresh");
        let is_share = self.when_easier.is_none_or(|share| share > 0.0 && share < 1.0);
        check.require(is_share, "when_easier", "must be above 0 and below 1 (0.15 is usual)");
        check.require(self.cpu_share > 0.0 && self.cpu_share <= 1.0, "cpu_share", "must be above 0 and at most 1");
        let fits = self.gpu_share > 0.0 && self.gpu_share <= 1.0;
        check.require(fits, "gpu_share", "must be above 0 and at most 1");
        check.require((2..=8192).contains(&self.probe), "probe", "must lie between 2 and 8,192");
        check.require((0.0..=2.0).contains(&self.min_drift), "min_drift", "must lie between 0 and 2");
        check.require(self.max_failures >= 1, "max_failures", "must be at least 1");
    }
}
