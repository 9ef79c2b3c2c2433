//! Recognizes files that are neither Parquet nor Arrow IPC by their first bytes, and names a remedy.

/// Says what a file is and what to do with it, by its first bytes; `None` if they tell nothing.
pub(super) fn recognized(start: &[u8]) -> Option<String> {
    let said = MARKS.iter().find(|(mark, _)| start.starts_with(mark)).map(|(_, what)| (*what).to_owned());
    said.or_else(|| (start.get(257..262) == Some(b"ustar")).then(|| "it is a tar archive; unpack it".to_owned()))
        .or_else(|| (!start.is_empty() && start.iter().all(|byte| *byte == 0)).then(|| ZEROS.to_owned()))
        .or_else(|| text(start))
}

/// Says what kind of text a file is; `None` if it is not a text.
fn text(start: &[u8]) -> Option<String> {
    let start = match std::str::from_utf8(start) {
        Ok(text) => text,
        // The first bytes end within a character.
        Err(e) if e.error_len().is_none() => std::str::from_utf8(&start[..e.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    let start = start.trim_start_matches('\u{feff}').trim_start();
    if start.is_empty() || start.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return None;
    }
    let first = start.lines().next().unwrap_or_default();
    let lower = start.get(..start.len().min(100)).unwrap_or(first).to_ascii_lowercase();
    let is_annex = first.contains("/annex/objects/") && start.lines().count() == 1;
    Some(match start.as_bytes()[0] {
        _ if start.starts_with("version https://git-lfs.github.com/spec/") => {
            "it is a Git LFS pointer, not the file that it stands for; run `git lfs pull` where it lies".into()
        }
        _ if is_annex => "it is a git-annex pointer, not the file; run `git annex get` where it lies".into(),
        b'<' if ["<!doctype html", "<html", "<head", "<body"].iter().any(|tag| lower.starts_with(tag)) => {
            "it is an HTML page, as a server sends in place of a file: a login or an error; download it again".into()
        }
        b'<' => "it is XML, as object stores send in place of a file: an error, most likely; download it again".into(),
        b'{' | b'[' => format!("it is JSON; {}", convert("read_json_auto")),
        _ if first.contains([',', '\t', ';', '|']) => format!("it is a text table (CSV); {}", convert("read_csv_auto")),
        _ => format!("it is a text, not a table; {}", convert("read_csv_auto")),
    })
}

fn convert(function: &str) -> String {
    format!(
        "convert it to Parquet, for example with `duckdb -c \"COPY (SELECT * FROM {function}('…')) TO 'x.parquet'\"`"
    )
}

/// How files begin that are often given in place of Parquet, and what to say of them.
const MARKS: [(&[u8], &str); 24] = [
    (b"PARE", "it is encrypted Parquet, of which nothing can be read without its keys; write it without encryption"),
    (b"\x1f\x8b", "it is compressed with gzip; unpack it (`gunzip`): Parquet and Feather compress inside"),
    (b"\x28\xb5\x2f\xfd", "it is compressed with Zstandard; unpack it (`unzstd`): Parquet and Feather compress inside"),
    (b"BZh", "it is compressed with bzip2; unpack it (`bunzip2`): Parquet and Feather compress inside"),
    (b"\xfd7zXZ\0", "it is compressed with xz; unpack it (`unxz`): Parquet and Feather compress inside"),
    (b"\x04\x22\x4d\x18", "it is compressed with LZ4; unpack it (`unlz4`): Parquet and Feather compress inside"),
    (b"\xff\x06\0\0sNaPpY", "it is compressed with Snappy; unpack it: Parquet and Feather compress inside"),
    (b"PK\x03\x04", "it is a zip archive (also .npz, .xlsx, PyTorch); unpack or convert it to Parquet"),
    (b"7z\xbc\xaf\x27\x1c", "it is a 7z archive; unpack it"),
    (b"Rar!", "it is a rar archive; unpack it"),
    (b"FEA1", "it is Feather of version 1; write it again with `pyarrow.feather.write_feather`"),
    (b"ORC", "it is ORC; convert it to Parquet, with `pyarrow.orc.read_table` and `pyarrow.parquet.write_table`"),
    (b"Obj\x01", "it is Avro; convert it to Parquet"),
    (b"\x93NUMPY", "it is a NumPy array; write it as a column of a Parquet file"),
    (b"\x89HDF\r\n\x1a\n", "it is HDF5; convert it to Parquet"),
    (b"SQLite format 3\0", "it is an SQLite database; export a table to Parquet"),
    (b"\x00\x05\x16\x07", "it is what macOS keeps beside a file (AppleDouble), not the file; delete it"),
    (b"\x80\x04\x95", "it is a Python pickle; write its table with `to_parquet`"),
    (b"\x80\x05\x95", "it is a Python pickle; write its table with `to_parquet`"),
    (b"%PDF", "it is a PDF; give Parquet or Arrow IPC"),
    (b"\xff\xd8\xff", "it is a JPEG image; put images into a binary column of a Parquet file"),
    (b"\x89PNG", "it is a PNG image; put images into a binary column of a Parquet file"),
    (b"MDS", "it is a shard of MosaicML Streaming; convert it to Parquet"),
    (b"LANC", "it is a Lance file; read the table with `lance` in Python, and give it as `data`"),
];

const ZEROS: &str = "it begins with zeros: it was never written, or not copied to its end; copy or write it again";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_table_is_named_with_its_remedy() {
        for (start, expected) in [
            (&b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"[..], "`git lfs pull`"),
            (b"/annex/objects/MD5E-s1--00.parquet\n", "`git annex get`"),
            (b"\n<!DOCTYPE html><html>", "HTML page"),
            (b"<?xml version=\"1.0\"?><Error>", "XML"),
            (b"{\"a\": 1}\n{\"a\": 2}\n", "JSON"),
            (b"\xef\xbb\xbf[1, 2]", "JSON"),
            (b"id,text\n1,a\n", "CSV"),
            ("id\ttext\n1\té".as_bytes().split_last().unwrap().1, "CSV"),
            (b"hello", "a text"),
            (b"\x1f\x8b\x08\0", "`gunzip`"),
            (b"PARE\0\0", "encrypted"),
            (&[0; 300], "zeros"),
        ] {
            let said = recognized(start).unwrap();
            assert!(said.contains(expected), "{}: {said}", start.escape_ascii());
        }
        for nothing in [&b""[..], b"\x01\x02\x03", b"caf\xe9 au lait"] {
            assert_eq!(recognized(nothing), None);
        }
    }
}
