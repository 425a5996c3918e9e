//! Reading of a request's method and path, before anything of it is trusted.
//!
//! An allow-list: nothing is decoded or normalised, so what is not written as
//! the API writes it is not there.

use http::{Method, Uri, Version};

use crate::gateway::refusal::Refusal;
use crate::gateway::request::cors::Page;
use crate::gateway::route::table::Table;
use crate::openai::api::Api;
use crate::openai::models::Form;
use crate::percent;

/// Endpoint that a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// `GET /healthz`: does the process live?
    Health,
    /// `GET /readyz`, or `/health`, as tools made for vLLM ask it: does it accept work?
    Ready,
    /// `GET /.well-known/jwks.json`: our public keys.
    Jwks,
    /// `GET …/v1/models`, or `GET …/models`, where llama.cpp's router has its list.
    Models {
        /// The route whose path it was asked on.
        route: Option<String>,
        /// Form of the list on that path.
        form: Form,
    },
    /// `GET …/v1/models/{id}`
    Model {
        /// The route whose path it was asked on.
        route: Option<String>,
        /// The model, decoded.
        id: String,
    },
    /// `POST …/v1/models/load`, `…/unload`, and the same under `…/models` as of llama.cpp's
    /// router.
    Load {
        /// The route whose path it was asked on.
        route: Option<String>,
        /// Action on the model that the body names.
        action: LoadAction,
    },
    /// `POST` of one of the APIs.
    Api {
        /// The route whose path it was asked on.
        route: Option<String>,
        /// API that is asked.
        api: Api,
        /// The path as the engine knows it.
        upstream_path: &'static str,
    },
    /// `GET …/v1/realtime`, to become a WebSocket.
    Realtime {
        /// The route whose path it was asked on.
        route: Option<String>,
    },
    /// A response that was made before.
    Stored {
        /// The route whose path it was asked on.
        route: Option<String>,
        /// Its id.
        id: String,
        /// Action on the response.
        action: StoredAction,
    },
}

/// Action on a response that was made before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredAction {
    /// `GET …/v1/responses/{id}`
    Get,
    /// `DELETE …/v1/responses/{id}`
    Delete,
    /// `POST …/v1/responses/{id}/cancel`
    Cancel,
}

/// Action that a client may ask for on a model, beside its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadAction {
    /// Bring the model up.
    Load,
    /// Let the model go.
    Unload,
}

impl LoadAction {
    /// Action that follows the path of the models.
    fn of(rest: &str) -> Option<Self> {
        match rest {
            "/load" => Some(Self::Load),
            "/unload" => Some(Self::Unload),
            _ => None,
        }
    }
}

impl Entry {
    /// Reads method and target. `own`: the entrance of a route that the host name
    /// is all for, where there is nothing else.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] for what is not on the list.
    pub fn read(
        method: &Method,
        uri: &Uri,
        version: Version,
        own: Option<&str>,
        table: &Table,
    ) -> Result<Self, Refusal> {
        if *method == Method::CONNECT || *method == Method::TRACE {
            return Err(Refusal::Method { allow: "GET, POST" });
        }
        let path = uri.path();
        // Absolute form is for forward proxies; HTTP/2 always has the authority.
        let absolute = version <= Version::HTTP_11 && uri.authority().is_some();
        if absolute || !path.starts_with('/') {
            return Err(Refusal::BadTarget);
        }
        // What joins a base address that ends with a slash with a path asks so.
        let path = path
            .strip_prefix('/')
            .filter(|rest| rest.starts_with("/v1/"))
            .unwrap_or(path);
        match path {
            "/healthz" => return only(method, &Method::GET, Self::Health),
            "/readyz" | "/health" => return only(method, &Method::GET, Self::Ready),
            "/.well-known/jwks.json" => return only(method, &Method::GET, Self::Jwks),
            _ => {}
        }
        let (route, path) = match own {
            Some(own) => (Some(own.to_owned()), path),
            None => split_route(path, table),
        };
        if let Some(rest) = path.strip_prefix("/models") {
            return router_models(method, route, rest);
        }
        if let Some(rest) = path.strip_prefix("/v1/models") {
            return models(method, route, rest);
        }
        if matches!(path, "/v1/realtime" | "/v1/realtime/") {
            return only(method, &Method::GET, Self::Realtime { route });
        }
        if let Some(rest) = path.strip_prefix("/v1/responses/")
            && !rest.is_empty()
        {
            return stored(method, route, rest);
        }
        let api = Api::from_path(path).ok_or(Refusal::UnknownPath)?;
        let upstream_path = api.upstream_path(path);
        only(
            method,
            &Method::POST,
            Self::Api {
                route,
                api,
                upstream_path,
            },
        )
    }

    /// The page for which a WebSocket is to be opened: it can set no header there.
    pub fn opens_for<'a>(&self, page: &'a Page) -> Option<&'a Page> {
        matches!(self, Self::Realtime { .. }).then_some(page)
    }

    /// The API, where one was asked for: its clients read its form of errors.
    pub fn api(&self) -> Option<Api> {
        match self {
            Self::Api { api, .. } => Some(*api),
            Self::Stored { .. } => Some(Api::Responses),
            Self::Realtime { .. } => Some(Api::Realtime),
            _ => None,
        }
    }
}

fn only(method: &Method, allowed: &Method, entry: Entry) -> Result<Entry, Refusal> {
    let is_head_of_get = *allowed == Method::GET && *method == Method::HEAD;
    if method == allowed || is_head_of_get {
        return Ok(entry);
    }
    let allow = if *allowed == Method::GET {
        "GET"
    } else {
        "POST"
    };
    Err(Refusal::Method { allow })
}

/// Takes a route's own segment off the front of a path.
fn split_route<'a>(path: &'a str, table: &Table) -> (Option<String>, &'a str) {
    let inner = path.strip_prefix('/').unwrap_or(path);
    if let Some((segment, _)) = inner.split_once('/')
        && table.is_entrance(segment)
    {
        let rest = inner.get(segment.len()..).unwrap_or_default();
        return (Some(segment.to_owned()), rest);
    }
    (None, path)
}

fn router_models(method: &Method, route: Option<String>, rest: &str) -> Result<Entry, Refusal> {
    if rest.is_empty() {
        let form = Form::LlamaCpp;
        return only(method, &Method::GET, Entry::Models { route, form });
    }
    let action = LoadAction::of(rest).ok_or(Refusal::UnknownPath)?;
    only(method, &Method::POST, Entry::Load { route, action })
}

fn models(method: &Method, route: Option<String>, rest: &str) -> Result<Entry, Refusal> {
    if rest.is_empty() || rest == "/" {
        let form = Form::OpenAi;
        return only(method, &Method::GET, Entry::Models { route, form });
    }
    // By GET it is a model of that name.
    if let (&Method::POST, Some(action)) = (method, LoadAction::of(rest)) {
        return Ok(Entry::Load { route, action });
    }
    let id = rest.strip_prefix('/').ok_or(Refusal::UnknownPath)?;
    let id = percent::decoded(id.strip_suffix('/').unwrap_or(id)).ok_or(Refusal::UnknownPath)?;
    only(method, &Method::GET, Entry::Model { route, id })
}

fn stored(method: &Method, route: Option<String>, rest: &str) -> Result<Entry, Refusal> {
    /// Longest id of a response, in bytes.
    const ID_BYTES_MAX: usize = 128;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (id, action) = match rest.strip_suffix("/cancel") {
        Some(id) if *method == Method::POST => (id, StoredAction::Cancel),
        Some(_) => return Err(Refusal::Method { allow: "POST" }),
        None if matches!(*method, Method::GET | Method::HEAD) => (rest, StoredAction::Get),
        None if *method == Method::DELETE => (rest, StoredAction::Delete),
        None => {
            let allow = "GET, DELETE";
            return Err(Refusal::Method { allow });
        }
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if id.is_empty() || id.len() > ID_BYTES_MAX || !id.bytes().all(plain) || id.starts_with('.') {
        return Err(Refusal::UnknownPath);
    }
    let id = id.to_owned();
    Ok(Entry::Stored { route, id, action })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubled_slash_before_the_version_is_one_and_no_other_is() {
        let read = |path: &str| {
            let uri: Uri = path.parse().unwrap();
            Entry::read(
                &Method::POST,
                &uri,
                Version::HTTP_11,
                None,
                &Table::default(),
            )
        };
        for path in ["/v1/chat/completions", "//v1/chat/completions"] {
            assert_eq!(read(path).unwrap().api(), Some(Api::Chat), "{path}");
        }
        for path in [
            "///v1/chat/completions",
            "//healthz",
            "/v1//chat/completions",
        ] {
            assert!(matches!(read(path), Err(Refusal::UnknownPath)), "{path}");
        }
    }

    #[test]
    fn head_is_taken_wherever_get_is() {
        for path in [
            "/healthz",
            "/readyz",
            "/health",
            "/v1/models",
            "/v1/models/a",
            "/v1/responses/a",
        ] {
            let uri: Uri = path.parse().unwrap();
            let read =
                |method| Entry::read(&method, &uri, Version::HTTP_11, None, &Table::default());
            assert_eq!(
                read(Method::HEAD).unwrap(),
                read(Method::GET).unwrap(),
                "{path}"
            );
        }
    }

    #[test]
    fn our_keys_are_read_at_their_one_address_and_never_written() {
        let read = |method: Method, path: &str| {
            let uri: Uri = path.parse().unwrap();
            Entry::read(&method, &uri, Version::HTTP_11, None, &Table::default())
        };
        let address = "/.well-known/jwks.json";
        assert_eq!(read(Method::GET, address).unwrap(), Entry::Jwks);
        assert_eq!(read(Method::HEAD, address).unwrap(), Entry::Jwks);
        assert!(matches!(
            read(Method::POST, address),
            Err(Refusal::Method { allow: "GET" })
        ));
        for other in [
            "/.well-known/jwks.json/",
            "/.well-known",
            "/.well-known/%6awks.json",
        ] {
            assert!(
                matches!(read(Method::GET, other), Err(Refusal::UnknownPath)),
                "{other}"
            );
        }
    }
}
