//! Lists objects of S3, Google Cloud Storage and Azure, and files of web servers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures::TryStreamExt;
use http_body_util::BodyExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpResponseBody, HttpService, ReqwestConnector,
};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path as ObjectPath;
use object_store::{ClientOptions, ObjectMeta, ObjectStore, ObjectStoreExt, ObjectStoreScheme, RetryConfig};
use url::Url;

use super::access::Access;
use super::folder::{CACHE, Found, data_files, is_cache_of_hf, is_dataset_of_hf, manifest, sort_out};
use super::hub::{HubStore, HubUri};
use super::pattern::{Component, is_wildcard, matches, unescaped};
use crate::error::{Error, Result};
use crate::source::location::{Location, Object, failed};
use crate::telemetry;

/// Connections to object stores.
pub(super) struct Remote {
    access: Access,
    /// The connections, each by what the uris of its store start with.
    open: HashMap<String, Arc<dyn ObjectStore>>,
}

impl Remote {
    pub fn new(access: &Access) -> Self {
        Self { access: access.clone(), open: HashMap::new() }
    }

    /// Lists the objects that `uri` names, sorted by name.
    ///
    /// These are one object, the data files of a folder, or the objects that match a pattern.
    pub async fn list(&mut self, uri: &str) -> Result<Found<Location>> {
        if let Some(hub) = HubUri::parse(uri) {
            let unsupported = |reason: String| Error::UnsupportedSource { uri: uri.to_owned(), reason };
            let hub = hub.map_err(unsupported)?;
            if let Some(snapshot) = hub.offline(&self.access) {
                let local = snapshot.map_err(unsupported)?.join(&hub.path);
                return super::local::list(local.display().to_string()).await;
            }
            self.open_hub(&hub).await?;
        }
        let characters = unescaped(uri.bytes().map(|byte| (byte, false)));
        let wildcard = characters.iter().position(is_wildcard);
        // The name of an object may itself contain brackets.
        if wildcard.is_some() && uri.contains('[') {
            let place = self.place(uri, uri)?;
            if let Some(object) = place.object(uri).await? {
                return Ok(Found::files(vec![object]));
            }
        }
        let text = |characters: &[(u8, bool)]| {
            String::from_utf8_lossy(&characters.iter().map(|(byte, _)| *byte).collect::<Vec<_>>()).into_owned()
        };
        let Some(wildcard) = wildcard else {
            let place = self.place(uri, &text(&characters))?;
            return match place.object(uri).await? {
                Some(object) => Ok(Found::files(vec![object])),
                None => place.folder(uri).await,
            };
        };
        let folder = characters[..wildcard].iter().rposition(|(byte, _)| *byte == b'/').map_or(0, |slash| slash + 1);
        let unsupported = |reason: String| Error::UnsupportedSource { uri: uri.to_owned(), reason };
        let components = characters[folder..].split(|(byte, _)| *byte == b'/').map(Component::new);
        let components = components.collect::<Result<Vec<_>, _>>().map_err(unsupported)?;
        self.place(uri, &text(&characters[..folder]))?.matching(uri, &components).await
    }

    /// Opens a data set of the hub, unless it is open.
    async fn open_hub(&mut self, hub: &HubUri) -> Result<()> {
        if self.open.contains_key(&hub.root) {
            return Ok(());
        }
        choose_tls();
        let counter = FailureCounter { failed_requests: self.access.failed_requests.clone() };
        let store = HubStore::open(hub, &self.access, counter).await;
        let store = store.map_err(|error| match error {
            object_store::Error::NotFound { source, .. } => {
                let hint = Some(format!("{source}; check owner, name and revision"));
                Error::NotFound { uri: hub.root.clone(), hint }
            }
            other => failed(&hub.root, "open", other),
        })?;
        self.open.insert(hub.root.clone(), Arc::new(store));
        Ok(())
    }

    /// Finds the place in a store that `text` names; `uri` is the uri that it is a part of.
    fn place(&mut self, uri: &str, text: &str) -> Result<StorePath> {
        if let Some(Ok(hub)) = HubUri::parse(text)
            && let Some(store) = self.open.get(&hub.root)
        {
            let path = ObjectPath::from(hub.path.as_str());
            let may_be_object = !text.ends_with('/') && !hub.path.is_empty();
            let root = format!("{}/", hub.root);
            return Ok(StorePath { store: store.clone(), root, path, may_be_object, may_be_folder: true });
        }
        let unsupported = |reason: String| Error::UnsupportedSource { uri: uri.to_owned(), reason };
        let url = Url::parse(text).map_err(|e| unsupported(e.to_string()))?;
        let (scheme, path) = ObjectStoreScheme::parse(&url).map_err(|e| {
            unsupported(format!("{e}; use s3, gs, az, hf, http or https, or copy the files to a local folder"))
        })?;
        let web = scheme == ObjectStoreScheme::Http;
        if web && (text != uri || text.ends_with('/')) {
            let reason = "files of a web server cannot be listed, and queries are not sent; name every file";
            return Err(unsupported(reason.to_owned()));
        }
        // The root is the text without the path, which may be encoded in it: one `/` for each part of the path.
        let root = path.parts().fold(text.trim_end_matches('/'), |root, _| root.rsplit_once('/').map_or(root, |r| r.0));
        let root = format!("{}/", root.trim_end_matches('/'));
        let store = match self.open.get(&root) {
            Some(store) => store.clone(),
            None => connect(&scheme, &url, &self.access).map_err(unsupported)?,
        };
        self.open.insert(root.clone(), store.clone());
        Ok(StorePath { store, root, path, may_be_object: !text.ends_with('/'), may_be_folder: !web })
    }
}

/// A place in an object store: an object, or a folder of objects.
struct StorePath {
    store: Arc<dyn ObjectStore>,
    /// What the uris of the store start with.
    root: String,
    path: ObjectPath,
    may_be_object: bool,
    may_be_folder: bool,
}

impl StorePath {
    fn location(&self, meta: ObjectMeta) -> Location {
        Location::Object(Object::new(self.store.clone(), &self.root, meta))
    }

    /// Finds the object at this place, if there is one.
    async fn object(&self, uri: &str) -> Result<Option<Location>> {
        if !self.may_be_object {
            return Ok(None);
        }
        match self.store.head(&self.path).await {
            Ok(meta) => Ok(Some(self.location(meta))),
            Err(object_store::Error::NotFound { .. }) if self.may_be_folder => Ok(None),
            Err(error) => Err(failed(uri, "find", error)),
        }
    }

    /// Lists the data files of the folder at this place.
    async fn folder(&self, uri: &str) -> Result<Found<Location>> {
        let listed = self.store.list_with_delimiter(Some(&self.path)).await.map_err(|e| failed(uri, "list", e))?;
        let name = |path: &ObjectPath| path.filename().unwrap_or_default().to_owned();
        let objects: Vec<_> = listed.objects.into_iter().map(|meta| (name(&meta.location), meta)).collect();
        if let Some(manifest) = manifest(objects.iter().map(|(name, _)| name.as_str())) {
            let path = self.path.clone().join(manifest);
            let get = async { self.store.get(&path).await?.bytes().await };
            let text = get.await.map_err(|e| failed(&format!("{}{path}", self.root), "read", e))?;
            if let Some(names) = data_files(uri, manifest, &text)? {
                let located = |name: String| {
                    let missing = || {
                        let hint = Some(format!("`{}{path}` names it: copy it there, too", self.root));
                        Error::NotFound { uri: format!("{}/{name}", uri.trim_end_matches('/')), hint }
                    };
                    let object = objects.iter().find(|(other, _)| *other == name).ok_or_else(missing)?;
                    Ok(self.location(object.1.clone()))
                };
                return Ok(Found::files(names.into_iter().map(located).collect::<Result<_>>()?));
            }
        }
        let (found, mut foreign) = sort_out(objects);
        let folders = listed.common_prefixes.iter().map(|path| (format!("{}/", name(path)), ()));
        foreign.extend(sort_out(folders.collect()).1);
        Ok(Found { files: found.into_iter().map(|meta| self.location(meta)).collect(), foreign })
    }

    /// Lists the objects below this place that match a pattern.
    async fn matching(&self, uri: &str, components: &[Component]) -> Result<Found<Location>> {
        let listed = self.store.list(Some(&self.path)).try_collect::<Vec<_>>().await;
        let mut found = listed.map_err(|error| failed(uri, "list", error))?;
        let names = |meta: &ObjectMeta| -> Vec<String> {
            let below = meta.location.prefix_match(&self.path).into_iter().flatten();
            below.map(|part| part.as_ref().to_owned()).collect()
        };
        let folder = |meta: &ObjectMeta| meta.location.as_ref().rsplit_once('/').map(|(folder, _)| folder.to_owned());
        let marks_dataset = |meta: &&ObjectMeta| meta.location.filename().is_some_and(is_dataset_of_hf);
        let datasets: Vec<_> = found.iter().filter(marks_dataset).map(folder).collect();
        let wants_caches = components.last().is_some_and(|last| last.begins_with(CACHE));
        found.retain(|meta| {
            let names = names(meta);
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            let is_cache = names.last().is_some_and(|name| is_cache_of_hf(name)) && datasets.contains(&folder(meta));
            matches(&names, components) && (wants_caches || !is_cache)
        });
        found.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(Found::files(found.into_iter().map(|meta| self.location(meta)).collect()))
    }
}

/// Connects to a store, with these settings on top of those from its usual environment variables.
///
/// The error is the reason why that fails.
fn connect(scheme: &ObjectStoreScheme, url: &Url, access: &Access) -> Result<Arc<dyn ObjectStore>, String> {
    choose_tls();
    let retry = RetryConfig { max_retries: access.retries, ..RetryConfig::default() };
    let counter = FailureCounter { failed_requests: access.failed_requests.clone() };
    macro_rules! connect {
        ($builder:expr, $url:expr) => {{
            let mut builder = $builder.with_url($url).with_retry(retry).with_http_connector(counter);
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
        _ => return Err(format!("`{}://` is not supported; use s3, gs, az, hf, http or https", url.scheme())),
    })
}

fn choose_tls() {
    // This fails if another part of the program has chosen a provider, which is then used.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Counts requests that fail for a passing reason. The object store itself sends them again.
#[derive(Clone, Debug)]
struct FailureCounter {
    failed_requests: Arc<AtomicUsize>,
}

impl FailureCounter {
    fn count(&self, reason: &dyn std::fmt::Display) {
        self.failed_requests.fetch_add(1, Relaxed);
        telemetry::request_failed(reason);
    }
}

impl HttpConnector for FailureCounter {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(CountedClient {
            client: ReqwestConnector::default().connect(options)?,
            counter: self.clone(),
        }))
    }
}

#[derive(Debug)]
struct CountedClient {
    client: HttpClient,
    counter: FailureCounter,
}

#[async_trait::async_trait]
impl HttpService for CountedClient {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.client.execute(request).await.inspect_err(|error| self.counter.count(error))?;
        let status = response.status();
        if status.is_server_error() || status.as_u16() == 429 || status.as_u16() == 408 {
            self.counter.count(&status);
        }
        let counter = self.counter.clone();
        Ok(response.map(|body| {
            HttpResponseBody::new(body.map_err(move |error| {
                counter.count(&error);
                error
            }))
        }))
    }
}
