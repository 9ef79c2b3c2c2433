//! The ONNX model that multiplies blocks and keeps the best scores.

use ort::editor::{Graph, Model, Node, ONNX_DOMAIN, Opset};
use ort::operator::Attribute;
use ort::value::{Outlet, Shape, SymbolicDimensions, TensorElementType, ValueType};

use crate::graph::device::DeviceFormat;

/// The names of the inputs.
pub(super) const TABLE_INPUT: &str = "table";
pub(super) const ROWS_INPUT: &str = "rows";
pub(super) const COLUMNS_INPUT: &str = "columns";
pub(super) const K_INPUT: &str = "k";

/// The names of the outputs.
pub(super) const SCORES_OUTPUT: &str = "scores";
pub(super) const BEST_COLUMNS_OUTPUT: &str = "best_columns";

/// Makes the model for a number format.
///
/// Inputs: `table` [n, d]; `columns` [blocks, c] of int32, positions in the table; `k` [1] of int64; and `rows`,
/// [blocks, r] of int32 if `rows_are_places`, positions in the table as well, otherwise vectors [blocks, r, d].
/// Outputs: `scores` of f32 and `best_columns` of int32, both [blocks, r, k].
pub(super) fn model(format: DeviceFormat, rows_are_places: bool) -> ort::Result<Model> {
    let number = element(format);
    let mut graph = Graph::new()?;
    let mut nodes = Nodes::default();
    let (rows, rows_type, rows_rank) =
        if rows_are_places { ("gathered_rows", TensorElementType::Int32, 2) } else { (ROWS_INPUT, number, 3) };
    graph.set_inputs([
        tensor(TABLE_INPUT, number, 2),
        tensor(ROWS_INPUT, rows_type, rows_rank),
        tensor(COLUMNS_INPUT, TensorElementType::Int32, 2),
        tensor(K_INPUT, TensorElementType::Int64, 1),
    ])?;
    graph.set_outputs([
        tensor(SCORES_OUTPUT, TensorElementType::Float32, 3),
        tensor(BEST_COLUMNS_OUTPUT, TensorElementType::Int32, 3),
    ])?;
    if rows_are_places {
        nodes.add("Gather", &[TABLE_INPUT, ROWS_INPUT], &[rows], [])?;
    }
    nodes.add("Gather", &[TABLE_INPUT, COLUMNS_INPUT], &["gathered_columns"], [])?;
    // ONNX Runtime fuses this with the product.
    nodes.add("Transpose", &["gathered_columns"], &["transposed"], [Attribute::new("perm", vec![0i64, 2, 1])?])?;
    let products = if format == DeviceFormat::F32 { "products" } else { "short_products" };
    nodes.add("MatMul", &[rows, "transposed"], &[products], [])?;
    if format != DeviceFormat::F32 {
        nodes.add("Cast", &[products], &["products"], [Attribute::new("to", ONNX_FLOAT)?])?;
    }
    let attributes =
        [Attribute::new("axis", -1i64)?, Attribute::new("largest", 1i64)?, Attribute::new("sorted", 1i64)?];
    nodes.add("TopK", &["products", K_INPUT], &[SCORES_OUTPUT, "long_columns"], attributes)?;
    nodes.add("Cast", &["long_columns"], &[BEST_COLUMNS_OUTPUT], [Attribute::new("to", ONNX_INT32)?])?;
    nodes.0.into_iter().try_for_each(|node| graph.add_node(node))?;
    let mut model = Model::new([Opset::new(ONNX_DOMAIN, 17)?])?;
    model.set_graph(graph)?;
    Ok(model)
}

/// The nodes of a model while it is built.
#[derive(Default)]
struct Nodes(Vec<Node>);

impl Nodes {
    /// Adds a node that is named after its first output.
    fn add(
        &mut self,
        operator: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: impl IntoIterator<Item = Attribute>,
    ) -> ort::Result<()> {
        self.0.push(Node::new(operator, ONNX_DOMAIN, outputs[0], inputs, outputs, attributes)?);
        Ok(())
    }
}

/// An input or output: a tensor whose sizes are not fixed.
pub(super) fn tensor(name: &str, ty: TensorElementType, rank: usize) -> Outlet {
    let shape = Shape::new(vec![-1; rank]);
    let dimension_symbols = SymbolicDimensions::empty(rank);
    Outlet::new(name, ValueType::Tensor { ty, shape, dimension_symbols })
}

/// The element type of a format.
pub(super) fn element(format: DeviceFormat) -> TensorElementType {
    match format {
        DeviceFormat::F32 => TensorElementType::Float32,
        DeviceFormat::F16 => TensorElementType::Float16,
        DeviceFormat::Bf16 => TensorElementType::Bfloat16,
    }
}

/// The numbers that ONNX gives to types.
const ONNX_FLOAT: i64 = 1;
const ONNX_INT32: i64 = 6;
