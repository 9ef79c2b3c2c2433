//! The ONNX model of a product and its best.

use ort::editor::{Graph, Model, Node, ONNX_DOMAIN, Opset};
use ort::operator::Attribute;
use ort::value::{Outlet, Shape, SymbolicDimensions, TensorElementType, ValueType};

use crate::graph::device::DeviceFormat;

/// The inputs.
pub(super) const TABLE: &str = "table";
pub(super) const ROWS: &str = "rows";
pub(super) const COLUMNS: &str = "columns";
pub(super) const K: &str = "k";

/// The outputs.
pub(super) const SCORES: &str = "scores";
pub(super) const PLACES: &str = "places";

/// `table` [n, d], `columns` [blocks, c] of int32, `k` [1] of int64, and `rows`, [blocks, r] of int32 or, where they are
/// no places in the table, [blocks, r, d]; gives `scores` of f32 and `places` of int32, both [blocks, r, k].
pub(super) fn model(format: DeviceFormat, rows_are_places: bool) -> ort::Result<Model> {
    let number = element(format);
    let (mut graph, mut nodes) = (Graph::new()?, Nodes::default());
    let (rows, rows_type, rows_rank) =
        if rows_are_places { ("gathered_rows", TensorElementType::Int32, 2) } else { (ROWS, number, 3) };
    graph.set_inputs([
        tensor(TABLE, number, 2),
        tensor(ROWS, rows_type, rows_rank),
        tensor(COLUMNS, TensorElementType::Int32, 2),
        tensor(K, TensorElementType::Int64, 1),
    ])?;
    graph.set_outputs([tensor(SCORES, TensorElementType::Float32, 3), tensor(PLACES, TensorElementType::Int32, 3)])?;
    if rows_are_places {
        nodes.add("Gather", &[TABLE, ROWS], &[rows], [])?;
    }
    nodes.add("Gather", &[TABLE, COLUMNS], &["gathered_columns"], [])?;
    // ONNX Runtime makes one operation of this and the product.
    nodes.add("Transpose", &["gathered_columns"], &["transposed"], [Attribute::new("perm", vec![0i64, 2, 1])?])?;
    let products = if format == DeviceFormat::F32 { "products" } else { "short_products" };
    nodes.add("MatMul", &[rows, "transposed"], &[products], [])?;
    if format != DeviceFormat::F32 {
        nodes.add("Cast", &[products], &["products"], [Attribute::new("to", ONNX_FLOAT)?])?;
    }
    let attributes =
        [Attribute::new("axis", -1i64)?, Attribute::new("largest", 1i64)?, Attribute::new("sorted", 1i64)?];
    nodes.add("TopK", &["products", K], &[SCORES, "long_places"], attributes)?;
    nodes.add("Cast", &["long_places"], &[PLACES], [Attribute::new("to", ONNX_INT32)?])?;
    nodes.0.into_iter().try_for_each(|node| graph.add_node(node))?;
    let mut model = Model::new([Opset::new(ONNX_DOMAIN, 17)?])?;
    model.set_graph(graph)?;
    Ok(model)
}

#[derive(Default)]
struct Nodes(Vec<Node>);

impl Nodes {
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

pub(super) fn tensor(name: &str, ty: TensorElementType, rank: usize) -> Outlet {
    let (shape, dimension_symbols) = (Shape::new(vec![-1; rank]), SymbolicDimensions::empty(rank));
    Outlet::new(name, ValueType::Tensor { ty, shape, dimension_symbols })
}

pub(super) fn element(format: DeviceFormat) -> TensorElementType {
    match format {
        DeviceFormat::F32 => TensorElementType::Float32,
        DeviceFormat::F16 => TensorElementType::Float16,
        DeviceFormat::Bf16 => TensorElementType::Bfloat16,
    }
}

/// Types, as ONNX numbers them.
const ONNX_FLOAT: i64 = 1;
const ONNX_INT32: i64 = 6;
