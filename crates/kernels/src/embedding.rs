//! Embedding lookup.

use crate::host::on_host;
use crate::kernel::{Context, Forward, Kernel, Operand, apply};
use crate::rows::{gather, plain_rows};
use burn::tensor::Tensor;
use std::sync::Arc;

/// Input: the table.
#[derive(Debug)]
struct Lookup {
    ids: Arc<[u32]>,
}

impl Kernel for Lookup {
    fn forward(&self, inputs: &[Operand<'_>], _: &[bool]) -> Forward {
        let width = inputs[0].width();
        Forward { data: gather(inputs[0].data, width, &self.ids), shape: vec![self.ids.len(), width], saved: Vec::new() }
    }

    fn backward(&self, context: Context<'_>) -> Vec<Option<Vec<f32>>> {
        vec![Some(context.grad.data.to_vec())]
    }

    fn keeps_input(&self, _: usize, _: &[bool]) -> bool {
        false
    }

    /// A head tied to the table has already left a dense gradient by the time the lookup's is known.
    fn gradient_rows(&self, _: usize) -> Option<&[u32]> {
        Some(&self.ids)
    }
}

/// The rows of `table` that the token ids name. In the gradient, the rows of equal ids are added in the tokens' order.
///
/// # Shapes
/// `table`: `[vocabulary, width]`; `ids`: one per token; the output: `[tokens, width]`.
///
/// # Panics
/// If an id is not in the vocabulary.
pub fn embedding(table: Tensor<2>, ids: &Arc<[u32]>) -> Tensor<2> {
    let [n_vocabulary, _] = table.dims();
    if let Some(id) = ids.iter().find(|&&id| id as usize >= n_vocabulary) {
        panic!("token id {id} is outside a vocabulary of {n_vocabulary}");
    }
    if on_host(&table.device()) { apply(Lookup { ids: ids.clone() }, [table.into_dispatch()]) } else { plain_rows(table, ids) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{devices, numbers};
    use burn::tensor::TensorData;

    const IDS: [u32; 5] = [3, 0, 3, 5, 3];
    const WIDTH: usize = 3;

    #[test]
    fn rows_are_looked_up_and_their_gradients_added() {
        for device in devices() {
            let numbers_of = |rows: usize, seed| {
                Tensor::<2>::from_data(TensorData::new(numbers(rows * WIDTH, seed), [rows, WIDTH]), &device.clone().autodiff())
            };
            let table = numbers_of(7, 1).require_grad();
            let embedded = embedding(table.clone(), &Arc::from(IDS));
            let (values, upstream) = (numbers(7 * WIDTH, 1), numbers(IDS.len() * WIDTH, 2));
            let expected: Vec<f32> = IDS.iter().flat_map(|&id| values[id as usize * WIDTH..][..WIDTH].to_vec()).collect();
            embedded.to_data().assert_eq(&TensorData::new(expected, [IDS.len(), WIDTH]), true);

            let gradients = (embedded * numbers_of(IDS.len(), 2)).sum().backward();
            let mut expected = vec![0.0; 7 * WIDTH];
            for (token, id) in IDS.into_iter().enumerate() {
                (0..WIDTH).for_each(|column| expected[id as usize * WIDTH + column] += upstream[token * WIDTH + column]);
            }
            let gradient = table.grad(&gradients).expect("the table's gradient").into_data();
            gradient.assert_eq(&TensorData::new(expected, [7, WIDTH]), true);
        }
    }

    #[test]
    fn a_frozen_table_gets_no_gradient() {
        for device in devices() {
            let device = device.autodiff();
            let table = Tensor::<2>::ones([7, WIDTH], &device);
            let other = Tensor::<2>::ones([IDS.len(), WIDTH], &device).require_grad();
            let gradients = (embedding(table.clone(), &Arc::from(IDS)) * other.clone()).sum().backward();
            assert!(table.grad(&gradients).is_none() && other.grad(&gradients).is_some());
        }
    }

    #[test]
    #[should_panic(expected = "token id 7 is outside a vocabulary of 7")]
    fn ids_outside_the_vocabulary_are_refused() {
        embedding(Tensor::ones([7, WIDTH], &devices()[0]), &Arc::from([7]));
    }
}
