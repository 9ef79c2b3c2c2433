//! The hub's API: the commit of a revision, and the files of a folder, page by page.

use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use object_store::client::{HttpClient, HttpRequest};
use object_store::path::Path as ObjectPath;
use object_store::{Error, ObjectMeta, Result};
use reqwest::header::{HeaderMap, LINK};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

/// Asks the hub about one data set.
#[derive(Debug)]
pub(super) struct Api {
    pub client: HttpClient,
    pub endpoint: Url,
    /// Says who asks.
    pub headers: HeaderMap,
    pub retries: usize,
    /// `OWNER/NAME`
    pub name: String,
}

/// What a revision stands for.
#[derive(Deserialize)]
struct Revision {
    sha: String,
}

/// What is in a folder.
#[derive(Deserialize)]
pub(super) struct Entry {
    #[serde(rename = "type")]
    pub kind: Kind,
    pub path: String,
    #[serde(default)]
    size: u64,
    /// A hash of the content.
    oid: String,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    File,
    Directory,
    #[serde(other)]
    Other,
}

impl Entry {
    /// Describes a file as an object.
    pub fn meta(&self) -> Option<ObjectMeta> {
        (self.kind == Kind::File).then(|| ObjectMeta {
            location: ObjectPath::from(self.path.as_str()),
            last_modified: Default::default(),
            size: self.size,
            e_tag: Some(self.oid.clone()),
            version: None,
        })
    }
}

impl Api {
    /// The commit that a revision stands for now.
    pub async fn commit(&self, revision: &str) -> Result<String> {
        let url = self.url("revision", [revision])?;
        Ok(parsed::<Revision>(&url, &self.get(&url).await?.0)?.sha)
    }

    /// What is below a folder, or in it; nothing if there is no such folder.
    pub async fn tree(&self, commit: &str, folder: Option<&ObjectPath>, is_recursive: bool) -> Result<Vec<Entry>> {
        let names: Vec<_> = folder.into_iter().flat_map(ObjectPath::parts).collect();
        let mut url = self.url("tree", [commit].into_iter().chain(names.iter().map(AsRef::as_ref)))?;
        url.set_query(Some(&format!("recursive={is_recursive}")));
        let mut entries = Vec::new();
        let mut next = Some(url);
        while let Some(url) = next {
            let (body, headers) = match self.get(&url).await {
                Err(Error::NotFound { .. }) => return Ok(entries),
                page => page?,
            };
            entries.extend(parsed::<Vec<Entry>>(&url, &body)?);
            next = self.next_page(&headers)?;
        }
        Ok(entries)
    }

    fn url<'a>(&self, of: &str, parts: impl IntoIterator<Item = &'a str>) -> Result<Url> {
        let mut url = self.endpoint.clone();
        let mut segments = url.path_segments_mut().map_err(|()| failed("the hub's endpoint is no url of a server"))?;
        segments.pop_if_empty().extend(["api", "datasets"]).extend(self.name.split('/')).push(of).extend(parts);
        drop(segments);
        Ok(url)
    }

    /// The url of the page that follows, from a header such as `<https://…>; rel="next"`.
    fn next_page(&self, headers: &HeaderMap) -> Result<Option<Url>> {
        let links = headers.get(LINK).and_then(|links| links.to_str().ok()).unwrap_or_default();
        let next = links.split(',').find(|link| link.contains("rel=\"next\""));
        let next = next.and_then(|link| link.split_once('<')?.1.split_once('>'));
        let Some((next, _)) = next else { return Ok(None) };
        // Another server must not be told who asks.
        let url = Url::parse(next).ok().filter(|url| url.origin() == self.endpoint.origin());
        url.map(Some)
            .ok_or_else(|| failed(format!("the hub names `{next}` as the page that follows, which is not its own")))
    }

    /// Sends a request, again if it fails for a passing reason.
    async fn get(&self, url: &Url) -> Result<(Bytes, HeaderMap)> {
        let begun = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut attempts = 0;
        loop {
            let error = match self.get_once(url).await {
                Ok(answer) => return answer,
                Err(error) => error,
            };
            if attempts >= self.retries || begun.elapsed() > LONGEST {
                return Err(error);
            }
            attempts += 1;
            // Up to half as long again, so that several processes do not come back together.
            let random = std::hash::RandomState::new().hash_one(attempts) % 500;
            tokio::time::sleep(pause + pause * random as u32 / 1000).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Sends a request once. The outer error is one that may pass.
    async fn get_once(&self, url: &Url) -> Result<Result<(Bytes, HeaderMap)>> {
        let mut request = HttpRequest::new(Bytes::new().into());
        *request.uri_mut() = url.as_str().parse().map_err(failed)?;
        *request.headers_mut() = self.headers.clone();
        let answer = self.client.execute(request).await.map_err(failed)?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.map_err(failed)?.to_bytes();
        let status = parts.status.as_u16();
        if parts.status.is_success() {
            return Ok(Ok((body, parts.headers)));
        }
        let code = parts.headers.get("x-error-code").and_then(|code| code.to_str().ok()).unwrap_or_default();
        let name = &self.name;
        let found = format!("the hub answers {} {code}", parts.status);
        let error = match status {
            401 | 403 => {
                let remedy = "log in (`hf auth login`), set HF_TOKEN, or agree to its terms on its page";
                let text = format!("{found}: there is no such data set, or it is not for everybody; {remedy}");
                Error::PermissionDenied { path: name.clone(), source: text.into() }
            }
            404 => Error::NotFound { path: name.clone(), source: found.into() },
            408 | 429 | 500.. => return Err(failed(found)),
            _ => failed(found),
        };
        Ok(Err(error))
    }
}

/// What an answer says.
fn parsed<T: DeserializeOwned>(url: &Url, body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| failed(format!("{url} does not answer as the hub does: {error}")))
}

pub(super) fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Generic { store: "hub", source: error.into() }
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// How long a request is sent again, as object stores do it.
const LONGEST: Duration = Duration::from_secs(180);
