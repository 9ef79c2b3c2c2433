//! "Here is an ONNX model, which files is it made of?"
//!
//! Large weights lie beside the model in files of their own (external data), which its tensors name. They are found in
//! the protobuf without reading any weights: what is not asked for is skipped by seeking. Costs milliseconds, whatever
//! the size of the model.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The files of the model at `path`, each once: the model itself, then the external data that its tensors name, in the
/// model's order, relative to its folder as ONNX Runtime takes them. Blocks.
///
/// A file that is no ONNX protobuf names no others: whoever opens it says what is wrong with it.
///
/// # Errors
/// [`Error::NotFound`] for the first file that is missing; [`Error::Io`] where the model cannot be read.
#[cfg(any(test, feature = "onnx"))]
pub(crate) fn model_files(path: &Path) -> Result<Vec<PathBuf>> {
    let files = named_files(path)?;
    match files.iter().find(|file| !file.is_file()) {
        None => Ok(files),
        Some(missing) => {
            let hint = match missing == path {
                true => "give the path of an ONNX model".to_owned(),
                false => format!("the model `{}` keeps weights in it: copy it there, too", path.display()),
            };
            Err(Error::NotFound { uri: missing.display().to_string(), hint: Some(hint) })
        }
    }
}

/// The same, whether they are there or not; only the model itself must be.
///
/// # Errors
/// [`Error::NotFound`] without the model; [`Error::Io`] where it cannot be read.
pub(crate) fn named_files(path: &Path) -> Result<Vec<PathBuf>> {
    let locations = match locations(path) {
        Ok(locations) => locations,
        Err(cause) if matches!(cause.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => Vec::new(),
        Err(cause) if cause.kind() == ErrorKind::NotFound => {
            let hint = Some("give the path of an ONNX model".to_owned());
            return Err(Error::NotFound { uri: path.display().to_string(), hint });
        }
        Err(cause) => return Err(Error::Io { action: "read", path: path.to_owned(), cause }),
    };
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut files = vec![path.to_owned()];
    for location in locations {
        let file = folder.join(location);
        if !files.contains(&file) {
            files.push(file);
        }
    }
    Ok(files)
}

/// The locations that a model's tensors give, each once.
fn locations(path: &Path) -> std::io::Result<Vec<String>> {
    let file = File::open(path)?;
    let end = file.metadata()?.len();
    let mut walk = Walk { reader: BufReader::new(file), at: 0, found: Vec::new() };
    walk.message(Message::Model, end, 0)?;
    Ok(walk.found)
}

/// The messages of onnx.proto in which tensors may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Function,
    SparseTensor,
    Tensor,
}

impl Message {
    /// What its field of this number holds, if tensors may be in it. Graphs for training are not: they are not run.
    fn field(self, number: u64) -> Option<Self> {
        Some(match (self, number) {
            (Self::Model, 7) | (Self::Attribute, 6 | 11) => Self::Graph,
            (Self::Model, 25) => Self::Function,
            (Self::Graph, 1) | (Self::Function, 7) => Self::Node,
            (Self::Node, 5) | (Self::Function, 11) => Self::Attribute,
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Self::SparseTensor,
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::SparseTensor, 1 | 2) => Self::Tensor,
            _ => return None,
        })
    }
}

/// A walk over protobuf's wire format. Every length is checked against the message around it.
struct Walk<R> {
    reader: BufReader<R>,
    /// Bytes that are behind it.
    at: u64,
    found: Vec<String>,
}

impl<R: Read + Seek> Walk<R> {
    /// Reads a message that ends at `end`.
    fn message(&mut self, message: Message, end: u64, depth: usize) -> std::io::Result<()> {
        if depth > DEPTH {
            return Err(invalid());
        }
        let (mut external, mut location) = (false, None);
        while self.at < end {
            let (number, wire) = self.tag(end)?;
            match (wire, message, number) {
                (VARINT, Message::Tensor, DATA_LOCATION) => external = self.varint(end)? == EXTERNAL,
                (VARINT, ..) => drop(self.varint(end)?),
                (FIXED_64, ..) => self.skip(8, end)?,
                (FIXED_32, ..) => self.skip(4, end)?,
                (BYTES, ..) => {
                    let length = self.varint(end)?;
                    let inner = self.at.checked_add(length).filter(|inner| *inner <= end).ok_or_else(invalid)?;
                    match message.field(number) {
                        Some(field) => self.message(field, inner, depth + 1)?,
                        None if message == Message::Tensor && number == EXTERNAL_DATA => {
                            let (key, value) = self.entry(inner)?;
                            if key == "location" {
                                location = Some(value);
                            }
                        }
                        None => self.skip(length, end)?,
                    }
                }
                _ => return Err(invalid()),
            }
        }
        match location {
            Some(location) if external && !location.is_empty() && !self.found.contains(&location) => {
                self.found.push(location);
            }
            _ => {}
        }
        Ok(())
    }

    /// A key and its value.
    fn entry(&mut self, end: u64) -> std::io::Result<(String, String)> {
        let (mut key, mut value) = (String::new(), String::new());
        while self.at < end {
            let (number, wire) = self.tag(end)?;
            if wire != BYTES {
                return Err(invalid());
            }
            let length = self.varint(end)?;
            match number {
                1 => key = self.text(length, end)?,
                2 => value = self.text(length, end)?,
                _ => self.skip(length, end)?,
            }
        }
        Ok((key, value))
    }

    /// The number of the next field, and how it is written.
    fn tag(&mut self, end: u64) -> std::io::Result<(u64, u64)> {
        let tag = self.varint(end)?;
        if tag >> 3 == 0 { Err(invalid()) } else { Ok((tag >> 3, tag & 7)) }
    }

    fn varint(&mut self, end: u64) -> std::io::Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.read(&mut byte, end)?;
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(invalid())
    }

    fn text(&mut self, length: u64, end: u64) -> std::io::Result<String> {
        if length > LONGEST_PATH {
            return Err(invalid());
        }
        let mut bytes = vec![0; length as usize];
        self.read(&mut bytes, end)?;
        String::from_utf8(bytes).map_err(|_| invalid())
    }

    fn read(&mut self, bytes: &mut [u8], end: u64) -> std::io::Result<()> {
        if bytes.len() as u64 > end - self.at {
            return Err(invalid());
        }
        self.reader.read_exact(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn skip(&mut self, length: u64, end: u64) -> std::io::Result<()> {
        if length > end - self.at {
            return Err(invalid());
        }
        self.reader.seek_relative(i64::try_from(length).map_err(|_| invalid())?)?;
        self.at += length;
        Ok(())
    }
}

fn invalid() -> std::io::Error {
    ErrorKind::InvalidData.into()
}

/// How protobuf writes a field.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const BYTES: u64 = 2;
const FIXED_32: u64 = 5;

/// Fields of a tensor, and the value of `data_location` for external data.
const EXTERNAL_DATA: u64 = 13;
const DATA_LOCATION: u64 = 14;
const EXTERNAL: u64 = 1;

/// Messages within messages, as many as protobuf's own readers allow.
const DEPTH: usize = 100;

/// Bytes of a location.
const LONGEST_PATH: u64 = 1 << 16;

#[cfg(test)]
mod tests {
    use std::fs;

    use rand::rngs::ChaCha8Rng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// Python's onnx wrote it: external data of an initializer, a sparse one, a constant in a branch of a branch, one
    /// of a function, and a file that two tensors share; one tensor names a file and yet keeps its data in the model.
    const MODEL: &[u8] = include_bytes!("../../tests/data/external/everywhere.onnx");

    #[test]
    fn external_data_are_found_wherever_tensors_are() {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("model.onnx");
        fs::write(&model, MODEL).unwrap();
        let names = ["branch.data", "function.data", "shared.data", "sparse/indices.data", "sparse/values.data"];
        let expected = names.map(|name| dir.path().join(name));
        let mut found = named_files(&model).unwrap();
        assert_eq!(found.remove(0), model);
        found.sort();
        assert_eq!(found, expected);

        fs::create_dir(dir.path().join("sparse")).unwrap();
        for (present, file) in expected.iter().enumerate() {
            let error = model_files(&model).unwrap_err().to_string();
            let is_named = |missing: &PathBuf| error.contains(&format!("`{}`", missing.display()));
            assert!(expected[present..].iter().any(is_named), "{error}");
            assert!(error.contains("model.onnx` keeps weights in it"), "{error}");
            fs::write(file, "weights").unwrap();
        }
        assert_eq!(model_files(&model).unwrap().len(), 6);
    }

    /// Whatever byte is damaged, wherever the file ends, and however deep its messages lie.
    #[test]
    fn garbage_is_no_panic() {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("model.onnx");
        let mut generator = ChaCha8Rng::seed_from_u64(5);
        for case in 0..3000 {
            let mut bytes = MODEL.to_vec();
            match case % 3 {
                0 => bytes.truncate(generator.random_range(0..bytes.len())),
                1 => (0..4).for_each(|_| bytes[generator.random_range(0..MODEL.len())] = generator.random()),
                _ => bytes.iter_mut().for_each(|byte| *byte = generator.random()),
            }
            fs::write(&model, &bytes).unwrap();
            assert_eq!(named_files(&model).unwrap()[0], model);
        }
        let nested = (0..3000).fold(Vec::new(), |inner, depth| field([5, 1, 6][depth % 3], inner.len() as u64, &inner));
        fs::write(&model, field(7, nested.len() as u64, &nested)).unwrap();
        assert_eq!(named_files(&model).unwrap(), [model]);
    }

    /// A tensor of 3 GB that was never written: only the length of the file is there.
    #[test]
    fn weights_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("model.onnx");
        let weights = 3 << 30;
        let tensor = field(9, weights, &[]);
        let graph = field(5, weights + tensor.len() as u64, &tensor);
        let head = field(7, weights + graph.len() as u64, &graph);
        let entry = [field(1, 8, b"location"), field(2, 9, b"more.data")].concat();
        let tensor = [vec![14 << 3, 1], field(13, entry.len() as u64, &entry)].concat();
        let graph = field(5, tensor.len() as u64, &tensor);
        let tail = field(7, graph.len() as u64, &graph);
        fs::write(&model, &head).unwrap();
        let mut file = fs::OpenOptions::new().append(true).open(&model).unwrap();
        file.set_len(head.len() as u64 + weights).unwrap();
        std::io::Write::write_all(&mut file, &tail).unwrap();
        assert_eq!(named_files(&model).unwrap(), [model.clone(), dir.path().join("more.data")]);
    }

    /// A field of `length` bytes, of which `begin` are here.
    fn field(number: u8, mut length: u64, begin: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2];
        while length > 0x7f {
            bytes.push(length as u8 | 0x80);
            length >>= 7;
        }
        bytes.push(length as u8);
        [&bytes, begin].concat()
    }
}
