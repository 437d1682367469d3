//! A graph under construction: operations in order, each fed by the one before it, and their constants.

use super::schema::{
    Attribute, AttributeType, DataType, Dimension, Extent, Graph, Node, Tensor, TensorShape, TensorType, Type,
    ValueInfo,
};

/// An attribute of an operation.
pub enum Value<'a> {
    Int(i64),
    Float(f32),
    Ints(&'a [i64]),
}

/// The operations so far.
pub struct Chain {
    nodes: Vec<Node>,
    initializers: Vec<Tensor>,
    /// The tensor that the last operation puts out.
    pub last: String,
}

impl Chain {
    /// A graph whose input is `input`.
    pub fn new(input: &str) -> Self {
        Self { nodes: Vec::new(), initializers: Vec::new(), last: input.to_owned() }
    }
    /// Adds an operation on the last tensor, then `others`, whose output `name` becomes the last tensor.
    pub fn add(&mut self, kind: &str, name: &str, others: &[&str], attributes: &[(&str, Value<'_>)]) {
        let first = self.last.clone();
        self.add_to(&first, kind, name, others, attributes);
    }
    /// The same on the tensor `first`.
    pub fn add_to(&mut self, first: &str, kind: &str, name: &str, others: &[&str], attributes: &[(&str, Value<'_>)]) {
        let input = std::iter::once(first).chain(others.iter().copied()).map(str::to_owned).collect();
        let attribute = attributes
            .iter()
            .map(|(name, value)| {
                let mut attribute = Attribute { name: (*name).to_owned(), ..Attribute::default() };
                match value {
                    Value::Int(i) => {
                        attribute.i = *i;
                        attribute.set_type(AttributeType::Int);
                    }
                    Value::Float(f) => {
                        attribute.f = *f;
                        attribute.set_type(AttributeType::Float);
                    }
                    Value::Ints(ints) => {
                        attribute.ints = ints.to_vec();
                        attribute.set_type(AttributeType::Ints);
                    }
                }
                attribute
            })
            .collect();
        let (name, op_type) = (name.to_owned(), kind.to_owned());
        self.nodes.push(Node { input, output: vec![name.clone()], name: name.clone(), op_type, attribute });
        self.last = name;
    }
    /// A constant of floats.
    pub fn floats(&mut self, name: &str, dims: &[usize], values: &[f32]) {
        self.constant(name, dims, DataType::Float, values.iter().flat_map(|v| v.to_le_bytes()).collect());
    }
    /// A constant of one float.
    pub fn number(&mut self, name: &str, value: f32) {
        self.floats(name, &[], &[value]);
    }
    /// A constant of whole numbers.
    pub fn ints(&mut self, name: &str, values: &[i64]) {
        self.constant(name, &[values.len()], DataType::Int64, values.iter().flat_map(|v| v.to_le_bytes()).collect());
    }
    fn constant(&mut self, name: &str, dims: &[usize], data_type: DataType, raw_data: Vec<u8>) {
        let dims = dims.iter().map(|d| *d as i64).collect();
        self.initializers.push(Tensor { dims, data_type: data_type as i32, name: name.to_owned(), raw_data });
    }
    /// The whole.
    pub fn finish(self, name: &str, input: ValueInfo, output: Vec<ValueInfo>) -> Graph {
        Graph { node: self.nodes, name: name.to_owned(), initializer: self.initializers, input: vec![input], output }
    }
}

/// A tensor that goes in or out: `n` of it in a batch, each of `extents`.
pub fn batch_of(name: &str, data_type: DataType, extents: &[usize], doc: &str) -> ValueInfo {
    let of = |value| Dimension { value: Some(value) };
    let dim = std::iter::once(of(Extent::Parameter("n".into())))
        .chain(extents.iter().map(|extent| of(Extent::Value(*extent as i64))))
        .collect();
    let tensor = TensorType { elem_type: data_type as i32, shape: Some(TensorShape { dim }) };
    ValueInfo { name: name.into(), r#type: Some(Type { tensor_type: Some(tensor) }), doc_string: doc.into() }
}
