//! Data sets on Hugging Face's hub, as an object store.
//!
//! Files are listed by the hub's API, at the commit that a revision stands for when it is opened, and read in ranges
//! like those of any store. A file that the hub's own clients have in their cache is read from there.
//!
//! The crates for the hub (hf-hub, opendal) bring a second library for cryptography and eighty more crates, for what is
//! two requests here.

mod api;
mod settings;
mod store;
mod uri;

pub(super) use self::store::HubStore;
pub(super) use self::uri::HubUri;
