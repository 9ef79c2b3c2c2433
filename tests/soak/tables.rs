//! Small tables of all kinds of columns, and files of them with all kinds of options.

use std::sync::Arc;

use parquet::arrow::ArrowWriter;
use parquet::basic::{BrotliLevel, Compression, Encoding, GzipLevel, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use prosampler::arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, DictionaryArray, FixedSizeListBuilder, Float32Builder, Float64Array,
    Int16Array, Int32Array, Int32Builder, Int64Array, LargeBinaryArray, ListBuilder, MapBuilder, RecordBatch,
    StringArray, StringBuilder, StringViewArray, StructArray, TimestampMicrosecondArray,
};
use prosampler::arrow::compute::concat_batches;
use prosampler::arrow::datatypes::{DataType, Field, Int32Type, Schema};
use prosampler::arrow::ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use prosampler::arrow::ipc::{CompressionType, MetadataVersion};
use rand::{RngExt, rngs::ChaCha8Rng};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Int32,
    Int64,
    Float64,
    Boolean,
    Text,
    TextView,
    Bytes,
    Dictionary,
    Decimal,
    Timestamp,
    Vector,
    List,
    Struct,
    Map,
}

pub const KINDS: [Kind; 14] = [
    Kind::Int32,
    Kind::Int64,
    Kind::Float64,
    Kind::Boolean,
    Kind::Text,
    Kind::TextView,
    Kind::Bytes,
    Kind::Dictionary,
    Kind::Decimal,
    Kind::Timestamp,
    Kind::Vector,
    Kind::List,
    Kind::Struct,
    Kind::Map,
];

/// Columns `c0`, `c1`, … of these kinds, a third of whose values are null where `nulls` says so.
pub fn table(kinds: &[Kind], rows: usize, nulls: bool, random: &mut ChaCha8Rng) -> RecordBatch {
    let columns: Vec<ArrayRef> = kinds.iter().map(|kind| column(*kind, rows, nulls, random)).collect();
    let named = columns.iter().enumerate().map(|(i, c)| Field::new(format!("c{i}"), c.data_type().clone(), true));
    RecordBatch::try_new(Arc::new(Schema::new(named.collect::<Vec<_>>())), columns).unwrap()
}

fn column(kind: Kind, rows: usize, nulls: bool, random: &mut ChaCha8Rng) -> ArrayRef {
    let there: Vec<bool> = (0..rows).map(|_| !(nulls && random.random_range(0..3) == 0)).collect();
    // Values come in runs, so that dictionaries and run lengths are used.
    let numbers: Vec<i64> = (0..rows).map(|row| (row / 4) as i64 * 7 + random.random_range(0..3)).collect();
    let some = |row: usize| there[row].then(|| numbers[row]);
    let words = ["ant", "bee", "", "a cat of some length", "Ünïcödé"];
    let word = |row: usize| some(row).map(|n| words[n as usize % words.len()]);
    let all = 0..rows;
    match kind {
        Kind::Int32 => Arc::new(all.map(|row| some(row).map(|n| n as i32)).collect::<Int32Array>()),
        Kind::Int64 => Arc::new(all.map(|row| some(row).map(|n| n << 33)).collect::<Int64Array>()),
        Kind::Float64 => Arc::new(all.map(|row| some(row).map(|n| n as f64 / 3.0)).collect::<Float64Array>()),
        Kind::Boolean => Arc::new(all.map(|row| some(row).map(|n| n % 2 == 0)).collect::<BooleanArray>()),
        Kind::Text => Arc::new(all.map(word).collect::<StringArray>()),
        Kind::TextView => Arc::new(all.map(word).collect::<StringViewArray>()),
        Kind::Bytes => Arc::new(all.map(|row| some(row).map(|n| vec![n as u8; 5])).collect::<LargeBinaryArray>()),
        Kind::Dictionary => Arc::new(all.map(word).collect::<DictionaryArray<Int32Type>>()),
        Kind::Decimal => {
            let values = all.map(|row| some(row).map(i128::from)).collect::<Decimal128Array>();
            Arc::new(values.with_precision_and_scale(20, 3).unwrap())
        }
        Kind::Timestamp => Arc::new(all.map(some).collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        Kind::Vector => {
            let mut lists = FixedSizeListBuilder::new(Float32Builder::new(), 3);
            for row in all {
                (0..3).for_each(|i| lists.values().append_value(numbers[row] as f32 + i as f32));
                lists.append(there[row]);
            }
            Arc::new(lists.finish())
        }
        Kind::List => {
            let mut lists = ListBuilder::new(Int32Builder::new());
            for row in all {
                if there[row] {
                    (0..numbers[row] % 4).for_each(|i| lists.values().append_option((i != 2).then_some(i as i32)));
                }
                lists.append(there[row]);
            }
            Arc::new(lists.finish())
        }
        Kind::Struct => {
            let short: ArrayRef = Arc::new((0..rows).map(|row| some(row).map(|n| n as i16)).collect::<Int16Array>());
            let text: ArrayRef = Arc::new((0..rows).map(word).collect::<StringArray>());
            let field = |name: &str, data_type| Arc::new(Field::new(name, data_type, true));
            let fields = [(field("short", DataType::Int16), short), (field("text", DataType::Utf8), text)];
            Arc::new(StructArray::from(fields.to_vec()))
        }
        Kind::Map => {
            let mut maps = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
            for row in all {
                for i in 0..numbers[row] % 3 {
                    maps.keys().append_value(words[i as usize]);
                    maps.values().append_value(i as i32);
                }
                maps.append(there[row]).unwrap();
            }
            Arc::new(maps.finish())
        }
    }
}

/// How a Parquet file is written.
#[derive(Clone, Debug)]
pub struct ParquetOptions {
    /// 0 to 5: none, Snappy, gzip, LZ4, zstd, Brotli.
    pub codec: u8,
    pub newer: bool,
    pub dictionary: bool,
    /// Delta encodings and split streams, where a column has one.
    pub special_encodings: bool,
    pub indexed: bool,
    pub page_rows: usize,
    pub group_rows: usize,
}

pub fn parquet(table: &RecordBatch, options: &ParquetOptions) -> Vec<u8> {
    let codecs = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::LZ4_RAW,
        Compression::ZSTD(ZstdLevel::default()),
        Compression::BROTLI(BrotliLevel::default()),
    ];
    let statistics = if options.indexed { EnabledStatistics::Page } else { EnabledStatistics::None };
    let version = if options.newer { WriterVersion::PARQUET_2_0 } else { WriterVersion::PARQUET_1_0 };
    let mut properties = WriterProperties::builder()
        .set_compression(codecs[usize::from(options.codec) % codecs.len()])
        .set_writer_version(version)
        .set_dictionary_enabled(options.dictionary)
        .set_statistics_enabled(statistics)
        .set_bloom_filter_enabled(options.indexed)
        .set_bloom_filter_max_ndv(20)
        .set_write_batch_size(1)
        .set_data_page_row_count_limit(options.page_rows.max(1))
        .set_max_row_group_row_count(Some(options.group_rows.max(1)));
    for field in table.schema().fields().iter().filter(|_| options.special_encodings && !options.dictionary) {
        let encoding = match field.data_type() {
            DataType::Int32 | DataType::Int64 | DataType::Timestamp(..) => Encoding::DELTA_BINARY_PACKED,
            DataType::Utf8 | DataType::Utf8View => Encoding::DELTA_BYTE_ARRAY,
            DataType::LargeBinary => Encoding::DELTA_LENGTH_BYTE_ARRAY,
            DataType::Float64 => Encoding::BYTE_STREAM_SPLIT,
            _ => continue,
        };
        properties = properties.set_column_encoding(field.name().as_str().into(), encoding);
    }
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, table.schema(), Some(properties.build())).unwrap();
    writer.write(table).unwrap();
    writer.close().unwrap();
    file
}

/// How an Arrow IPC file or stream is written.
#[derive(Clone, Debug)]
pub struct IpcOptions {
    pub file: bool,
    /// 0 to 2: none, LZ4, zstd.
    pub codec: u8,
    pub batch_rows: usize,
}

pub fn ipc(table: &RecordBatch, options: &IpcOptions) -> Vec<u8> {
    let codecs = [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)];
    let how = IpcWriteOptions::try_new(64, false, MetadataVersion::V5).unwrap();
    let how = how.try_with_compression(codecs[usize::from(options.codec) % codecs.len()]).unwrap();
    let step = options.batch_rows.max(1);
    let batches = (0..table.num_rows()).step_by(step).map(|from| table.slice(from, step.min(table.num_rows() - from)));
    // Sliced arrays share what they were sliced from.
    let batches = batches.map(|batch| concat_batches(&batch.schema(), [&batch]).unwrap());
    let mut bytes = Vec::new();
    if options.file {
        let mut writer = FileWriter::try_new_with_options(&mut bytes, &table.schema(), how).unwrap();
        batches.for_each(|batch| writer.write(&batch).unwrap());
        writer.finish().unwrap();
    } else {
        let mut writer = StreamWriter::try_new_with_options(&mut bytes, &table.schema(), how).unwrap();
        batches.for_each(|batch| writer.write(&batch).unwrap());
        writer.finish().unwrap();
    }
    bytes
}
