//! Parameters of a module by path, such as `trunk.layers.0.attention.query.weight`.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};
use std::fmt;

/// One parameter of a module.
pub struct Parameter {
    /// Where it is in the module, parts joined by dots.
    pub path: String,
    /// The extent of each axis.
    pub shape: Vec<usize>,
    /// Whether training changes it.
    pub trainable: bool,
    read: Box<dyn Fn() -> TensorData>,
}

impl Parameter {
    /// A tensor that is called `path`.
    pub fn of<const D: usize>(path: &str, tensor: &Tensor<D>) -> Self {
        let (shape, trainable) = (tensor.dims().to_vec(), tensor.is_require_grad());
        let tensor = tensor.clone();
        Self { path: path.to_owned(), shape, trainable, read: Box::new(move || tensor.to_data()) }
    }

    /// Values that belong to no module, such as those a checkpoint holds for someone else.
    pub fn stored(path: String, shape: Vec<usize>, values: Vec<f32>) -> Self {
        let data = TensorData::new(values, shape.clone());
        Self { path, shape, trainable: false, read: Box::new(move || data.clone()) }
    }

    /// The same parameter with other values, of the same shape, that are computed when they are asked for.
    pub fn computed(self, read: impl Fn() -> TensorData + 'static) -> Self {
        Self { read: Box::new(read), ..self }
    }

    /// Its values, copied to the host.
    pub fn data(&self) -> TensorData {
        (self.read)()
    }

    /// How many numbers it holds.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}{}", self.path, self.shape, if self.trainable { "" } else { " frozen" })
    }
}

/// A look at single parameters, which sees each one's path.
pub trait Visit {
    /// Looks at one parameter.
    fn visit<const D: usize>(&mut self, path: &str, tensor: &Tensor<D>);
}

/// Shows every float parameter of `module` to `visit`, in the order of its fields.
pub fn visit_parameters(module: &impl Module, visit: &mut impl Visit) {
    struct Walk<'a, V> {
        path: Vec<String>,
        visit: &'a mut V,
    }

    impl<V: Visit> ModuleVisitor for Walk<'_, V> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.visit.visit(&self.path.join("."), &param.val());
        }

        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }

        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
    }

    module.visit(&mut Walk { path: Vec::new(), visit });
}

/// All float parameters of `module`, in the order of its fields.
pub fn parameters(module: &impl Module) -> Vec<Parameter> {
    struct Collect(Vec<Parameter>);

    impl Visit for Collect {
        fn visit<const D: usize>(&mut self, path: &str, tensor: &Tensor<D>) {
            self.0.push(Parameter::of(path, tensor));
        }
    }

    let mut collect = Collect(Vec::new());
    visit_parameters(module, &mut collect);
    collect.0
}

/// How many numbers the parameters of `module` hold: those that training changes, and all.
pub fn counts(module: &impl Module) -> [usize; 2] {
    let all = parameters(module);
    let sum = |only_trainable: bool| all.iter().filter(|parameter| parameter.trainable || !only_trainable).map(Parameter::len).sum();
    [sum(true), sum(false)]
}

/// A change of single parameters, which sees each one's path.
pub trait Change {
    /// The parameter as it shall be.
    fn change<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>>;
}

/// Applies `change` to every float parameter of `module`, in the order of its fields.
pub fn change_parameters<M: Module>(module: M, change: &mut impl Change) -> M {
    struct Map<'a, C> {
        path: Vec<String>,
        change: &'a mut C,
    }

    impl<C: Change> ModuleMapper for Map<'_, C> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            self.change.change(&self.path.join("."), param)
        }

        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }

        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
    }

    module.map(&mut Map { path: Vec::new(), change })
}
