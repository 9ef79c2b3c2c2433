//! "Here is an ONNX model, give me the files that it consists of."
//!
//! Large weights are in files of their own beside the model (external data), which its tensors name. The names are read
//! from the protobuf without any weights, which are skipped by seeking, so that the size of the model does not matter.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Lists the files of the model at `path`, each once: the model itself, then its external data. Blocks.
///
/// External data are in the order of the model, relative to its folder, as ONNX Runtime takes them. A file that is not
/// an ONNX protobuf names no others; whoever opens it reports what is wrong with it.
///
/// # Errors
/// [`Error::NotFound`] for the first file that is missing; [`Error::Io`] if the model cannot be read.
#[cfg(any(test, feature = "onnx"))]
pub(crate) fn model_files(path: &Path) -> Result<Vec<PathBuf>> {
    let files = named_files(path)?;
    match files.iter().find(|file| !file.is_file()) {
        None => Ok(files),
        Some(missing) => {
            let hint = if missing == path {
                "give the path of an ONNX model".to_owned()
            } else {
                format!("the model `{}` keeps weights in it: copy it there, too", path.display())
            };
            Err(Error::NotFound { uri: missing.display().to_string(), hint: Some(hint) })
        }
    }
}

/// Lists the files that a model names, like [`model_files`], whether they exist or not.
///
/// # Errors
/// [`Error::NotFound`] if the model itself is missing; [`Error::Io`] if it cannot be read.
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

/// Reads the locations that a model's tensors name, each once.
fn locations(path: &Path) -> std::io::Result<Vec<String>> {
    let file = File::open(path)?;
    let end = file.metadata()?.len();
    let mut reader = WireReader { reader: BufReader::new(file), position: 0, locations: Vec::new() };
    reader.message(OnnxMessage::Model, end, 0)?;
    Ok(reader.locations)
}

/// The messages of onnx.proto that may contain tensors.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OnnxMessage {
    Model,
    Graph,
    Node,
    Attribute,
    Function,
    SparseTensor,
    Tensor,
}

impl OnnxMessage {
    /// Returns the message in a field, if it may contain tensors. Graphs for training are left out: they are not run.
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

/// A reader of protobuf's wire format. Every length is checked against the enclosing message.
struct WireReader<R> {
    reader: BufReader<R>,
    /// The bytes read or skipped so far.
    position: u64,
    /// The locations found so far.
    locations: Vec<String>,
}

impl<R: Read + Seek> WireReader<R> {
    /// Reads a message that ends at `end`.
    fn message(&mut self, message: OnnxMessage, end: u64, depth: usize) -> std::io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(invalid());
        }
        let mut external = false;
        let mut location = None;
        while self.position < end {
            let (number, wire) = self.tag(end)?;
            match (wire, message, number) {
                (VARINT, OnnxMessage::Tensor, DATA_LOCATION) => external = self.varint(end)? == EXTERNAL,
                (VARINT, ..) => drop(self.varint(end)?),
                (FIXED_64, ..) => self.skip(8, end)?,
                (FIXED_32, ..) => self.skip(4, end)?,
                (BYTES, ..) => {
                    let length = self.varint(end)?;
                    let inner = self.position.checked_add(length).filter(|inner| *inner <= end).ok_or_else(invalid)?;
                    match message.field(number) {
                        Some(field) => self.message(field, inner, depth + 1)?,
                        None if message == OnnxMessage::Tensor && number == EXTERNAL_DATA => {
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
            Some(location) if external && !location.is_empty() && !self.locations.contains(&location) => {
                self.locations.push(location);
            }
            _ => {}
        }
        Ok(())
    }

    /// Reads a key and its value.
    fn entry(&mut self, end: u64) -> std::io::Result<(String, String)> {
        let mut key = String::new();
        let mut value = String::new();
        while self.position < end {
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

    /// Reads the number of the next field and its wire type.
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
        if length > MAX_LOCATION_BYTES {
            return Err(invalid());
        }
        let mut bytes = vec![0; length as usize];
        self.read(&mut bytes, end)?;
        String::from_utf8(bytes).map_err(|_| invalid())
    }

    fn read(&mut self, bytes: &mut [u8], end: u64) -> std::io::Result<()> {
        if bytes.len() as u64 > end - self.position {
            return Err(invalid());
        }
        self.reader.read_exact(bytes)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn skip(&mut self, length: u64, end: u64) -> std::io::Result<()> {
        if length > end - self.position {
            return Err(invalid());
        }
        self.reader.seek_relative(i64::try_from(length).map_err(|_| invalid())?)?;
        self.position += length;
        Ok(())
    }
}

fn invalid() -> std::io::Error {
    ErrorKind::InvalidData.into()
}

/// Wire types of protobuf.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const BYTES: u64 = 2;
const FIXED_32: u64 = 5;

/// Numbers of a tensor's fields, and the value of `data_location` for external data.
const EXTERNAL_DATA: u64 = 13;
const DATA_LOCATION: u64 = 14;
const EXTERNAL: u64 = 1;

/// The deepest nesting of messages, as in protobuf's own readers.
const MAX_DEPTH: usize = 100;

/// The most bytes of a location.
const MAX_LOCATION_BYTES: u64 = 1 << 16;

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

    /// A field of `length` bytes, the first of which are `start`.
    fn field(number: u8, mut length: u64, start: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2];
        while length > 0x7f {
            bytes.push(length as u8 | 0x80);
            length >>= 7;
        }
        bytes.push(length as u8);
        [&bytes, start].concat()
    }
}
