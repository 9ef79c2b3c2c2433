//! Objects of S3, Google Cloud Storage and Azure, and files of web servers.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use futures::TryStreamExt;
use http_body_util::BodyExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpResponseBody, HttpService, ReqwestConnector,
};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::{
    ClientOptions, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, ObjectStoreScheme, RetryConfig,
};
use url::Url;

use super::Access;
use super::files::ENDINGS;
use super::location::Location;
use crate::error::{Error, Result};
use crate::telemetry;

/// One object, as it was when it was listed.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub uri: String,
    pub size: u64,
    store: Arc<dyn ObjectStore>,
    meta: ObjectMeta,
}

/// Connections to stores, by the begin of the uris that they serve.
pub(super) struct Remote {
    access: Access,
    open: HashMap<String, Arc<dyn ObjectStore>>,
}

impl Object {
    fn new(store: Arc<dyn ObjectStore>, root: &str, meta: ObjectMeta) -> Self {
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

impl Remote {
    pub fn new(access: &Access) -> Self {
        Self { access: access.clone(), open: HashMap::new() }
    }

    /// The objects that `uri` names: one, those below it with one of the endings, or those that match a pattern; by
    /// name.
    pub async fn list(&mut self, uri: &str) -> Result<Vec<Location>> {
        let unsupported = |reason: String| Error::UnsupportedSource { uri: uri.to_owned(), reason };
        let wildcard = uri.find(['*', '?', '[']);
        let literal = wildcard.map_or(uri, |at| &uri[..=uri[..at].rfind('/').unwrap_or(0)]);
        let pattern = wildcard.map(|_| glob::Pattern::new(&uri[literal.len()..])).transpose();
        let pattern = pattern.map_err(|e| unsupported(format!("not a shell pattern: {e}")))?;
        let url = Url::parse(literal).map_err(|e| unsupported(e.to_string()))?;
        let (scheme, path) = ObjectStoreScheme::parse(&url).map_err(|e| {
            unsupported(format!("{e}; use s3, gs, az, http or https, or copy the files to a local folder"))
        })?;
        let web = scheme == ObjectStoreScheme::Http;
        if web && (pattern.is_some() || literal.ends_with('/')) {
            let reason = "files of a web server cannot be listed, and queries are not sent; name every file";
            return Err(unsupported(reason.to_owned()));
        }
        let root = literal.trim_end_matches('/').strip_suffix(path.as_ref()).unwrap_or(literal);
        let root = format!("{}/", root.trim_end_matches('/'));
        let store = match self.open.get(&root) {
            Some(store) => store.clone(),
            None => connect(&scheme, &url, &self.access).map_err(unsupported)?,
        };
        self.open.insert(root.clone(), store.clone());

        if pattern.is_none() && !literal.ends_with('/') {
            match store.head(&path).await {
                Ok(meta) => return Ok(vec![Location::Object(Object::new(store, &root, meta))]),
                Err(object_store::Error::NotFound { .. }) if !web => {}
                Err(error) => return Err(failed(uri, "find", error)),
            }
        }
        let failed = |error| failed(uri, "list", error);
        let mut found: Vec<ObjectMeta> = match &pattern {
            None => store.list_with_delimiter(Some(&path)).await.map_err(failed)?.objects,
            Some(_) => store.list(Some(&path)).try_collect().await.map_err(failed)?,
        };
        let wanted = |meta: &ObjectMeta| match &pattern {
            None => meta.location.extension().is_some_and(|ending| ENDINGS.contains(&ending)),
            Some(pattern) => {
                let name = meta.location.as_ref().strip_prefix(path.as_ref()).unwrap_or_default();
                let whole = glob::MatchOptions { require_literal_separator: true, ..Default::default() };
                pattern.matches_with(name.trim_start_matches('/'), whole)
            }
        };
        found.retain(wanted);
        found.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(found.into_iter().map(|meta| Location::Object(Object::new(store.clone(), &root, meta))).collect())
    }
}

/// A store with these settings on top of those that its usual environment variables give. The error is a reason.
fn connect(scheme: &ObjectStoreScheme, url: &Url, access: &Access) -> Result<Arc<dyn ObjectStore>, String> {
    // Another part of the program may have chosen its own.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let retry = RetryConfig { max_retries: access.retries, ..RetryConfig::default() };
    let counted = Counted { faults: access.faults.clone() };
    macro_rules! connect {
        ($builder:expr, $url:expr) => {{
            let mut builder = $builder.with_url($url).with_retry(retry).with_http_connector(counted);
            for (key, value) in &access.options {
                let known = key.to_ascii_lowercase().parse();
                let unknown = |_| format!("`source.options` has `{key}`, which is no option of this store");
                builder = builder.with_config(known.map_err(unknown)?, value);
            }
            Arc::new(builder.build().map_err(|e| e.to_string())?) as Arc<dyn ObjectStore>
        }};
    }
    Ok(match scheme {
        ObjectStoreScheme::AmazonS3 => connect!(AmazonS3Builder::from_env(), url.as_str()),
        ObjectStoreScheme::GoogleCloudStorage => connect!(GoogleCloudStorageBuilder::from_env(), url.as_str()),
        ObjectStoreScheme::MicrosoftAzure => connect!(MicrosoftAzureBuilder::from_env(), url.as_str()),
        ObjectStoreScheme::Http => connect!(HttpBuilder::new(), &url[..url::Position::BeforePath]),
        _ => return Err(format!("`{}://` is not supported; use s3, gs, az, http or https", url.scheme())),
    })
}

fn failed(uri: &str, action: &'static str, error: object_store::Error) -> Error {
    match error {
        object_store::Error::NotFound { .. } => {
            let hint = "; check the path, and that the credentials allow to see it".to_owned();
            Error::NotFound { uri: uri.to_owned(), hint }
        }
        other => Error::Remote { uri: uri.to_owned(), action, cause: other.into() },
    }
}

/// Counts the answers after which a request is tried again; trying again is the store's own business.
#[derive(Clone, Debug)]
struct Counted {
    faults: Arc<AtomicUsize>,
}

impl Counted {
    fn count(&self, reason: &dyn std::fmt::Display) {
        self.faults.fetch_add(1, Relaxed);
        telemetry::remote_fault(reason);
    }
}

impl HttpConnector for Counted {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(CountedClient {
            client: ReqwestConnector::default().connect(options)?,
            counted: self.clone(),
        }))
    }
}

#[derive(Debug)]
struct CountedClient {
    client: HttpClient,
    counted: Counted,
}

#[async_trait::async_trait]
impl HttpService for CountedClient {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.client.execute(request).await.inspect_err(|error| self.counted.count(error))?;
        let status = response.status();
        if status.is_server_error() || status.as_u16() == 429 || status.as_u16() == 408 {
            self.counted.count(&status);
        }
        let counted = self.counted.clone();
        Ok(response.map(|body| {
            HttpResponseBody::new(body.map_err(move |error| {
                counted.count(&error);
                error
            }))
        }))
    }
}
