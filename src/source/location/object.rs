//! An object of S3, Google Cloud Storage and Azure, or a file of a web server.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use object_store::{GetOptions, ObjectMeta, ObjectStore};

use crate::error::{Error, Result};

/// An object in the version in which it was listed.
#[derive(Clone, Debug)]
pub(in crate::source) struct Object {
    pub uri: String,
    pub size: u64,
    store: Arc<dyn ObjectStore>,
    meta: ObjectMeta,
}

impl Object {
    /// Describes an object; `root` is what the uris of its store start with.
    pub fn new(store: Arc<dyn ObjectStore>, root: &str, meta: ObjectMeta) -> Self {
        Self { uri: format!("{root}{}", meta.location), size: meta.size, store, meta }
    }

    /// Returns a text that changes with the content.
    pub fn version(&self) -> String {
        let tag = self.meta.e_tag.clone();
        format!("{} {}", self.size, tag.unwrap_or_else(|| self.meta.last_modified.to_rfc3339()))
    }

    /// Fetches a range of bytes.
    ///
    /// # Errors
    /// [`Error::SourceChanged`] if the object is no longer in this version; [`Error::Remote`].
    pub async fn fetch(&self, range: Range<u64>) -> Result<Bytes> {
        // Weak tags never match in a request for a range.
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

/// The error for a request that failed.
pub(in crate::source) fn failed(uri: &str, action: &'static str, error: object_store::Error) -> Error {
    match error {
        object_store::Error::NotFound { .. } => {
            let hint = Some("check the path, and that the credentials allow to see it".to_owned());
            Error::NotFound { uri: uri.to_owned(), hint }
        }
        other => Error::Remote { uri: uri.to_owned(), action, cause: other.into() },
    }
}
