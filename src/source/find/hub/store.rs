use std::fmt::{self, Display, Formatter};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::client::HttpConnector;
use object_store::http::{HttpBuilder, HttpStore};
use object_store::path::Path as ObjectPath;
use object_store::{
    Attributes, ClientOptions, CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    RetryConfig,
};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use super::api::{Api, Entry, Kind, failed};
use super::settings::Settings;
use super::uri::HubUri;
use crate::source::find::access::Access;

/// A data set on the hub, at one commit. It can only be read.
#[derive(Debug)]
pub(in crate::source) struct HubStore {
    api: Arc<Api>,
    commit: String,
    files: HttpStore,
    /// Where the hub's own clients have kept files of this commit.
    cached: PathBuf,
}

impl HubStore {
    /// Looks up the commit that a revision stands for now.
    pub async fn open(uri: &HubUri, access: &Access, connector: impl HttpConnector + Clone) -> Result<Self> {
        let settings = Settings::of(access).map_err(failed)?;
        let folder = settings.folder(&uri.name);
        let mut headers = HeaderMap::new();
        if let Some(token) = settings.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| failed("the token of the hub has signs that no token has; log in again"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let is_plain = settings.endpoint.scheme() == "http";
        let options = ClientOptions::new().with_default_headers(headers.clone()).with_allow_http(is_plain);
        let files = HttpBuilder::new()
            .with_url(settings.endpoint.as_str())
            .with_client_options(options.clone())
            .with_retry(RetryConfig { max_retries: access.retries, ..RetryConfig::default() })
            .with_http_connector(connector.clone())
            .build()?;
        let client = connector.connect(&options)?;
        let (endpoint, name) = (settings.endpoint, uri.name.clone());
        let api = Api { client, endpoint, headers, retries: access.retries, name };
        let commit = api.commit(&uri.revision).await?;
        let cached = folder.join("snapshots").join(&commit);
        Ok(Self { api: Arc::new(api), commit, files, cached })
    }

    async fn meta(&self, location: &ObjectPath) -> Result<ObjectMeta> {
        let names: Vec<_> = location.parts().collect();
        let folder: ObjectPath = names[..names.len().saturating_sub(1)].iter().cloned().collect();
        let entries = self.api.tree(&self.commit, Some(&folder), false).await?;
        let found = entries.iter().filter_map(Entry::meta).find(|meta| meta.location == *location);
        let missing = "the data set has no such file at this revision";
        found.ok_or_else(|| Error::NotFound { path: location.to_string(), source: missing.into() })
    }
}

impl Display for HubStore {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "data set {} at {}", self.api.name, self.commit)
    }
}

#[async_trait::async_trait]
impl ObjectStore for HubStore {
    async fn get_opts(&self, location: &ObjectPath, options: GetOptions) -> Result<GetResult> {
        if options.head {
            let meta = self.meta(location).await?;
            let range = 0..meta.size;
            return Ok(result(meta, range, stream::empty().boxed()));
        }
        let path = self.cached.join(location.as_ref());
        if path.is_file() {
            let (bytes, range, size) =
                tokio::task::spawn_blocking(|| read(path, options.range)).await?.map_err(failed)?;
            return Ok(result(meta(location, size), range, stream::iter([Ok(bytes)]).boxed()));
        }
        // The uri names a commit, so files never change; the tags of what is behind it are other ones.
        let options = GetOptions { if_match: None, if_unmodified_since: None, ..options };
        let folder = ObjectPath::from(format!("datasets/{}/resolve/{}", self.api.name, self.commit));
        self.files.get_opts(&folder.parts().chain(location.parts()).collect(), options).await
    }

    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (api, commit, prefix) = (self.api.clone(), self.commit.clone(), prefix.cloned());
        let tree = async move { api.tree(&commit, prefix.as_ref(), true).await };
        let files = |entries: Vec<Entry>| entries.into_iter().filter_map(|entry| entry.meta().map(Ok));
        stream::once(tree).map_ok(move |entries| stream::iter(files(entries))).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&ObjectPath>) -> Result<ListResult> {
        let entries = self.api.tree(&self.commit, prefix, false).await?;
        let folders = entries.iter().filter(|entry| entry.kind == Kind::Directory);
        Ok(ListResult {
            common_prefixes: folders.map(|entry| ObjectPath::from(entry.path.as_str())).collect(),
            objects: entries.iter().filter_map(Entry::meta).collect(),
            extensions: Default::default(),
        })
    }

    async fn put_opts(&self, _: &ObjectPath, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(read_only())
    }

    async fn put_multipart_opts(&self, _: &ObjectPath, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(read_only())
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<ObjectPath>>) -> BoxStream<'static, Result<ObjectPath>> {
        stream::iter([Err(read_only())]).boxed()
    }

    async fn copy_opts(&self, _: &ObjectPath, _: &ObjectPath, _: CopyOptions) -> Result<()> {
        Err(read_only())
    }
}

/// Reads a range of a file, and returns it with the file's size.
fn read(path: PathBuf, range: Option<GetRange>) -> std::io::Result<(Bytes, Range<u64>, u64)> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let range = range.map_or(Ok(0..size), |range| range.as_range(size)).map_err(std::io::Error::other)?;
    file.seek(SeekFrom::Start(range.start))?;
    let mut bytes = Vec::new();
    file.take(range.end - range.start).read_to_end(&mut bytes)?;
    Ok((bytes.into(), range, size))
}

fn meta(location: &ObjectPath, size: u64) -> ObjectMeta {
    let (location, last_modified) = (location.clone(), Default::default());
    ObjectMeta { location, last_modified, size, e_tag: None, version: None }
}

fn result(meta: ObjectMeta, range: Range<u64>, bytes: BoxStream<'static, Result<Bytes>>) -> GetResult {
    let payload = GetResultPayload::Stream(bytes);
    GetResult { payload, meta, range, attributes: Attributes::new(), extensions: Default::default() }
}

fn read_only() -> Error {
    Error::NotSupported { source: "data sets of the hub are only read".into() }
}
