/// How far a start or a refresh has come: `done` of `total` samples in one stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// What is under way.
    pub stage: Stage,
    /// Samples done.
    pub done: usize,
    /// Samples in all, where known.
    pub total: Option<usize>,
}

/// What a start consists of, and a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading the source into the store.
    Store,
    /// Embedding the samples.
    Encode,
    /// Building the graph.
    Graph,
}
