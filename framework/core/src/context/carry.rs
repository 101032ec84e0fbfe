//! What a method carries from step to step and from task to task, declared once per tensor.
//!
//! [`Carry`] declares: a name, a kind, a shape, and how a fresh one is made. When a task begins,
//! the run's draws answer. When a run resumes, the saved state answers. What comes back is a
//! handle: a [`Variable`] that gradients train, a [`Value`] that is replaced as a whole, or a
//! [`Held`] of any type that can be stored. [`Carried`] is the list of all living handles: it gives
//! the state, and a tensor leaves it when its handle is dropped.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use candle_core::{Device, Tensor, Var};

use super::host::{Host, Law, Placement, draw};
use crate::array::Array;
use crate::state::{Kind, State};
use crate::{Error, Result};

/// How the first value of a declared tensor is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fresh {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// Drawn from the method's own stream under the name `init.<name>`.
    Draw(Law),
    /// Drawn from the method's own stream under a name of its own.
    DrawAs(&'static str, Law),
}

/// What can be part of a state: one or several arrays with names of their own.
pub trait Stored: Sized {
    /// The arrays of what was declared as `name`.
    fn save(&self, name: &str) -> Result<Vec<(String, Array)>>;

    /// Reads it back from the arrays of [`Stored::save`]; `None` if the state has none of them.
    ///
    /// # Errors
    /// [`Error::Protocol`] that names an array that is missing or of another shape.
    fn load(name: &str, from: &Loader) -> Result<Option<Self>>;
}

/// A saved state, for [`Stored::load`].
pub struct Loader<'a> {
    state: &'a State,
    /// The run's device and floating-point type.
    pub placement: &'a Placement,
}

impl Loader<'_> {
    /// The array of this name, if the state has it.
    pub fn find(&self, name: &str) -> Option<&Array> {
        self.state.get(name).map(|entry| &entry.value)
    }

    /// The array of this name.
    ///
    /// # Errors
    /// [`Error::Protocol`] that names what is missing.
    pub fn array(&self, name: &str) -> Result<&Array> {
        self.state.array(name)
    }
}

impl Stored for Array {
    fn save(&self, name: &str) -> Result<Vec<(String, Array)>> {
        Ok(vec![(name.to_owned(), self.clone())])
    }

    fn load(name: &str, from: &Loader) -> Result<Option<Self>> {
        Ok(from.find(name).cloned())
    }
}

/// A tensor on the run's device, in the element type that it was saved in.
impl Stored for Tensor {
    fn save(&self, name: &str) -> Result<Vec<(String, Array)>> {
        Ok(vec![(name.to_owned(), Array::from_tensor(self)?)])
    }

    fn load(name: &str, from: &Loader) -> Result<Option<Self>> {
        from.find(name).map(|array| array.to_tensor(&from.placement.device)).transpose()
    }
}

/// A tensor that stays on the host, whatever the run's device.
#[derive(Debug, Clone)]
pub struct OnHost(pub Tensor);

impl Stored for OnHost {
    fn save(&self, name: &str) -> Result<Vec<(String, Array)>> {
        self.0.save(name)
    }

    fn load(name: &str, from: &Loader) -> Result<Option<Self>> {
        from.find(name).map(|array| array.to_tensor(&Device::Cpu).map(Self)).transpose()
    }
}

/// Numbers in double precision, a one-dimensional array.
impl Stored for Vec<f64> {
    fn save(&self, name: &str) -> Result<Vec<(String, Array)>> {
        Ok(vec![(
            name.to_owned(),
            Array::from_tensor(&Tensor::new(self.as_slice(), &Device::Cpu)?)?,
        )])
    }

    fn load(name: &str, from: &Loader) -> Result<Option<Self>> {
        from.find(name).map(Array::to_f64).transpose()
    }
}

/// A number in double precision, a scalar.
impl Stored for f64 {
    fn save(&self, name: &str) -> Result<Vec<(String, Array)>> {
        Ok(vec![(name.to_owned(), Array::from_tensor(&Tensor::new(*self, &Device::Cpu)?)?)])
    }

    fn load(name: &str, from: &Loader) -> Result<Option<Self>> {
        let Some(array) = from.find(name) else { return Ok(None) };
        match array.to_f64()?[..] {
            [value] => Ok(Some(value)),
            _ => Err(wrong_shape(name, &array.shape, &[])),
        }
    }
}

/// A count, a scalar 64-bit integer.
impl Stored for i64 {
    fn save(&self, name: &str) -> Result<Vec<(String, Array)>> {
        Ok(vec![(name.to_owned(), Array::from_tensor(&Tensor::new(*self, &Device::Cpu)?)?)])
    }

    fn load(name: &str, from: &Loader) -> Result<Option<Self>> {
        let Some(array) = from.find(name) else { return Ok(None) };
        match array.shape[..] {
            [] => Ok(Some(array.to_tensor(&Device::Cpu)?.to_scalar()?)),
            _ => Err(wrong_shape(name, &array.shape, &[])),
        }
    }
}

/// Counts, a one-dimensional array of 64-bit integers.
impl Stored for Vec<i64> {
    fn save(&self, name: &str) -> Result<Vec<(String, Array)>> {
        Ok(vec![(name.to_owned(), Array::from_i64(self))])
    }

    fn load(name: &str, from: &Loader) -> Result<Option<Self>> {
        from.find(name).map(|array| Ok(array.to_tensor(&Device::Cpu)?.to_vec1()?)).transpose()
    }
}

fn wrong_shape(name: &str, found: &[usize], expected: &[usize]) -> Error {
    Error::Protocol(format!(
        "state: '{name}' has shape {found:?}, expected {expected:?}; if another cilbench or other \
         settings wrote it, remove the run's folder and begin anew"
    ))
}

/// A living handle's share of the state.
trait Share: Send + Sync {
    fn save(&self) -> Result<Vec<(String, Array)>>;
}

/// A tensor that gradients train; it dereferences to candle's `Var`.
#[derive(Clone)]
pub struct Variable(Arc<NamedVar>);

struct NamedVar {
    name: String,
    var: Var,
}

impl Share for NamedVar {
    fn save(&self) -> Result<Vec<(String, Array)>> {
        Ok(vec![(self.name.clone(), Array::from_tensor(&self.var)?)])
    }
}

impl Variable {
    /// Its name in the state.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The variable.
    pub fn var(&self) -> &Var {
        &self.0.var
    }
}

impl Deref for Variable {
    type Target = Var;

    fn deref(&self) -> &Var {
        &self.0.var
    }
}

impl std::fmt::Debug for Variable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Variable({} {:?})", self.0.name, self.0.var.shape())
    }
}

/// Something carried that is replaced as a whole. An empty one is no part of the state.
pub struct Held<T>(Arc<NamedCell<T>>);

/// A tensor that is replaced as a whole.
pub type Value = Held<Tensor>;

struct NamedCell<T> {
    name: String,
    /// The shape that it keeps, if it was declared with one.
    shape: Option<Vec<usize>>,
    content: RwLock<Option<Arc<T>>>,
}

impl<T: Stored + Send + Sync> Share for NamedCell<T> {
    fn save(&self) -> Result<Vec<(String, Array)>> {
        match &*self.content.read().unwrap_or_else(PoisonError::into_inner) {
            Some(content) => content.save(&self.name),
            None => Ok(Vec::new()),
        }
    }
}

impl<T> Clone for Held<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> std::fmt::Debug for Held<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Held({})", self.0.name)
    }
}

impl<T> Held<T> {
    /// The content.
    ///
    /// # Errors
    /// [`Error::Protocol`] that names it, if nothing was set yet.
    pub fn get(&self) -> Result<Arc<T>> {
        self.find()
            .ok_or_else(|| Error::Protocol(format!("'{}' was read before it was set", self.0.name)))
    }

    /// The content, if there is one.
    pub fn find(&self) -> Option<Arc<T>> {
        self.0.content.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn put(&self, content: T) {
        *self.0.content.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(content));
    }
}

impl<T: Stored> Held<T> {
    /// Replaces the content. [`Value::replace`] also checks a tensor's shape.
    pub fn set(&self, content: T) {
        self.put(content);
    }
}

impl Held<Tensor> {
    /// Replaces the tensor by one of the declared shape, without its graph.
    ///
    /// # Errors
    /// [`Error::Protocol`] that names it, for another shape.
    pub fn replace(&self, tensor: &Tensor) -> Result<()> {
        match &self.0.shape {
            Some(shape) if shape != tensor.dims() => {
                Err(wrong_shape(&self.0.name, tensor.dims(), shape))
            }
            _ => {
                self.put(tensor.detach());
                Ok(())
            }
        }
    }
}

/// A living handle, weakly: it leaves the list when the method drops it.
struct Declared {
    kind: Kind,
    share: Weak<dyn Share>,
}

/// The list of everything that one method carries.
#[derive(Clone, Default)]
pub struct Carried(Arc<Mutex<BTreeMap<String, Declared>>>);

impl Carried {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    fn declare(&self, name: &str, kind: Kind, share: &Arc<dyn Share>) -> Result<()> {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if list.get(name).is_some_and(|old| old.share.strong_count() > 0) {
            return Err(Error::Protocol(format!("the method declares '{name}' twice")));
        }
        list.insert(name.to_owned(), Declared { kind, share: Arc::downgrade(share) });
        Ok(())
    }

    /// A snapshot of everything.
    ///
    /// # Errors
    /// [`Error::Protocol`] if two arrays have one name.
    pub fn state(&self) -> Result<State> {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        list.retain(|_, declared| declared.share.strong_count() > 0);
        let mut state = State::new();
        for declared in list.values() {
            let Some(share) = declared.share.upgrade() else { continue };
            for (name, array) in share.save()? {
                state.put_array(name, declared.kind, array)?;
            }
        }
        Ok(state)
    }

    /// The arrays of what was declared as `name`, for a part that does not hold the handle.
    ///
    /// # Errors
    /// [`Error::Protocol`] if nothing of this name is declared.
    pub fn read(&self, name: &str) -> Result<Vec<(String, Array)>> {
        let list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match list.get(name).and_then(|declared| declared.share.upgrade()) {
            Some(share) => share.save(),
            None => {
                Err(Error::Protocol(format!("'{name}' is read, but the method never declared it")))
            }
        }
    }
}

/// Where first values come from.
enum Source<'a> {
    /// Draws, when a task begins.
    Fresh(&'a mut dyn Host),
    /// A saved state, when a run resumes.
    Saved { state: &'a State, training: bool },
}

/// Declares what a method carries.
pub struct Carry<'a> {
    source: Source<'a>,
    carried: &'a Carried,
    placement: &'a Placement,
}

impl<'a> Carry<'a> {
    /// Draws answer.
    pub fn fresh(host: &'a mut dyn Host, carried: &'a Carried, placement: &'a Placement) -> Self {
        Self { source: Source::Fresh(host), carried, placement }
    }

    /// A saved state answers; `training` says whether the task was still in training.
    pub fn saved(
        state: &'a State,
        training: bool,
        carried: &'a Carried,
        placement: &'a Placement,
    ) -> Self {
        Self { source: Source::Saved { state, training }, carried, placement }
    }
}

impl Carry<'_> {
    /// The run's device and floating-point type.
    pub fn placement(&self) -> &Placement {
        self.placement
    }

    /// Whether the task is to be trained from here. It is false for a task that was over when the
    /// state was saved: its optimiser and whatever else is dropped with it are not declared again.
    pub fn training(&self) -> bool {
        match self.source {
            Source::Fresh(_) => true,
            Source::Saved { training, .. } => training,
        }
    }

    /// Whether a saved state answers.
    pub fn is_restoring(&self) -> bool {
        matches!(self.source, Source::Saved { .. })
    }

    /// A tensor that gradients train, in the run's type on its device.
    ///
    /// # Errors
    /// [`Error::Protocol`] if the name is declared twice, or if the state lacks it or has another
    /// shape.
    pub fn variable(
        &mut self,
        name: impl Into<String>,
        kind: Kind,
        shape: &[usize],
        fresh: Fresh,
    ) -> Result<Variable> {
        let name = name.into();
        let first = self.first(&name, shape, fresh)?;
        self.register_variable(name, kind, Var::from_tensor(&first)?)
    }

    /// A variable that exists already (a backbone's weights): it keeps its value, or takes the
    /// saved one.
    ///
    /// # Errors
    /// As [`Carry::variable`].
    pub fn adopt(&mut self, name: impl Into<String>, kind: Kind, var: &Var) -> Result<Variable> {
        let name = name.into();
        if let Some(array) = self.saved_array(&name, var.dims())? {
            var.set(&array.to_dtype(var.dtype(), var.device())?)?;
        }
        self.register_variable(name, kind, var.clone())
    }

    /// A frozen copy of a tensor, which keeps the value that it has now, or the saved one.
    ///
    /// # Errors
    /// As [`Carry::variable`].
    pub fn copied(
        &mut self,
        name: impl Into<String>,
        kind: Kind,
        tensor: &Tensor,
    ) -> Result<Variable> {
        self.adopt(name, kind, &Var::from_tensor(&tensor.detach().copy()?)?)
    }

    /// A tensor of a fixed shape that is replaced as a whole, in the run's type on its device.
    ///
    /// # Errors
    /// As [`Carry::variable`].
    pub fn value(
        &mut self,
        name: impl Into<String>,
        kind: Kind,
        shape: &[usize],
        fresh: Fresh,
    ) -> Result<Value> {
        let name = name.into();
        let first = self.first(&name, shape, fresh)?;
        self.register(name, kind, Some(shape.to_vec()), Some(first))
    }

    /// Anything that can be stored. It begins empty and must have been set before the state from
    /// which it is restored was saved.
    ///
    /// # Errors
    /// [`Error::Protocol`] if the name is declared twice, or if the state lacks it.
    pub fn held<T: Stored + Send + Sync + 'static>(
        &mut self,
        name: impl Into<String>,
        kind: Kind,
    ) -> Result<Held<T>> {
        let name = name.into();
        let content = self.load::<T>(&name)?;
        if content.is_none() && self.is_restoring() {
            return Err(lacking(&name));
        }
        self.register(name, kind, None, content)
    }

    /// As [`Carry::held`], but the state may lack it.
    ///
    /// # Errors
    /// [`Error::Protocol`] if the name is declared twice.
    pub fn optional<T: Stored + Send + Sync + 'static>(
        &mut self,
        name: impl Into<String>,
        kind: Kind,
    ) -> Result<Held<T>> {
        let name = name.into();
        let content = self.load::<T>(&name)?;
        self.register(name, kind, None, content)
    }

    /// As [`Carry::held`], with a content to begin with.
    ///
    /// # Errors
    /// As [`Carry::held`].
    pub fn held_from<T: Stored + Send + Sync + 'static>(
        &mut self,
        name: impl Into<String>,
        kind: Kind,
        first: T,
    ) -> Result<Held<T>> {
        let held = match self.is_restoring() {
            true => self.held(name, kind)?,
            false => self.optional(name, kind)?,
        };
        if held.find().is_none() {
            held.put(first);
        }
        Ok(held)
    }

    fn load<T: Stored>(&self, name: &str) -> Result<Option<T>> {
        match &self.source {
            Source::Fresh(_) => Ok(None),
            Source::Saved { state, .. } => {
                T::load(name, &Loader { state, placement: self.placement })
            }
        }
    }

    /// The saved array, of this shape; none if draws answer.
    fn saved_array(&self, name: &str, shape: &[usize]) -> Result<Option<&Array>> {
        let Source::Saved { state, .. } = &self.source else { return Ok(None) };
        let array = &state.get(name).ok_or_else(|| lacking(name))?.value;
        if array.shape != shape {
            return Err(wrong_shape(name, &array.shape, shape));
        }
        Ok(Some(array))
    }

    /// The first value of a tensor of the run's type.
    fn first(&mut self, name: &str, shape: &[usize], fresh: Fresh) -> Result<Tensor> {
        let Placement { device, dtype } = self.placement;
        if let Some(array) = self.saved_array(name, shape)? {
            return array.to_dtype(*dtype, device);
        }
        let Source::Fresh(host) = &mut self.source else { return Err(lacking(name)) };
        match fresh {
            Fresh::Zeros => Ok(Tensor::zeros(shape, *dtype, device)?),
            Fresh::Ones => Ok(Tensor::ones(shape, *dtype, device)?),
            Fresh::Draw(law) => draw(*host, format!("init.{name}"), shape, law, self.placement),
            Fresh::DrawAs(drawn, law) => draw(*host, drawn.to_owned(), shape, law, self.placement),
        }
    }

    fn register_variable(&self, name: String, kind: Kind, var: Var) -> Result<Variable> {
        let named = Arc::new(NamedVar { name, var });
        self.carried.declare(&named.name, kind, &(named.clone() as Arc<dyn Share>))?;
        Ok(Variable(named))
    }

    fn register<T: Stored + Send + Sync + 'static>(
        &self,
        name: String,
        kind: Kind,
        shape: Option<Vec<usize>>,
        content: Option<T>,
    ) -> Result<Held<T>> {
        let cell = Arc::new(NamedCell { name, shape, content: RwLock::new(content.map(Arc::new)) });
        self.carried.declare(&cell.name, kind, &(cell.clone() as Arc<dyn Share>))?;
        Ok(Held(cell))
    }
}

fn lacking(name: &str) -> Error {
    Error::Protocol(format!(
        "state: there is no tensor '{name}', which the method carries; if another cilbench or other \
         settings wrote it, remove the run's folder and begin anew"
    ))
}
