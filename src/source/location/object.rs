//! Objects of S3, Google Cloud Storage and Azure, and files of web servers.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use object_store::{GetOptions, ObjectMeta, ObjectStore};

use crate::error::{Error, Result};

/// One object, as it was when it was listed.
#[derive(Clone, Debug)]
pub(in crate::source) struct Object {
    pub uri: String,
    pub size: u64,
    store: Arc<dyn ObjectStore>,
    meta: ObjectMeta,
}

impl Object {
    pub fn new(store: Arc<dyn ObjectStore>, root: &str, meta: ObjectMeta) -> Self {
        Self { uri: format!("{root}{}", meta.location), size: meta.size, store, meta }
    }

    /// A text that changes with the content.
    pub fn version(&self) -> String {
        let tag = self.meta.e_tag.clone();
        format!("{} {}", self.size, tag.unwrap_or_else(|| self.meta.last_modified.to_rfc3339()))
    }

    /// These bytes, or [`Error::SourceChanged`] if they are no longer those of this version.
    pub async fn fetch(&self, range: Range<u64>) -> Result<Bytes> {
        // Weak tags are of no use here: they never match in a request for a part.
        let tag = self.meta.e_tag.clone().filter(|tag| !tag.starts_with("W/"));
        let unmodified = if tag.is_none() { Some(self.meta.last_modified) } else { None };
        let options = GetOptions {
            range: Some(range.into()),
            if_match: tag,
            if_unmodified_since: unmodified,
            ..GetOptions::default()
        };
        let fetch = async { self.store.get_opts(&self.meta.location, options).await?.bytes().await };
        let changed = |change| Error::SourceChanged { uri: self.uri.clone(), change };
        fetch.await.map_err(|error| match error {
            object_store::Error::NotFound { .. } => changed("is gone"),
            object_store::Error::Precondition { .. } => changed("has changed"),
            other => failed(&self.uri, "read", other),
        })
    }
}

pub(in crate::source) fn failed(uri: &str, action: &'static str, error: object_store::Error) -> Error {
    match error {
        object_store::Error::NotFound { .. } => {
            let hint = "; check the path, and that the credentials allow to see it".to_owned();
            Error::NotFound { uri: uri.to_owned(), hint }
        }
        other => Error::Remote { uri: uri.to_owned(), action, cause: other.into() },
    }
}
