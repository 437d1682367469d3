import test from 'ava';

import { nearest, suggestion } from '../lib/nearest.js';

const names = ['batch', 'epochs', 'weightDecay', 'colourNoise'];

test('a slip finds its word, whatever its case', (t) => {
  t.is(nearest('epoch', names), 'epochs');
  t.is(nearest('weight_decay', names), 'weightDecay');
  t.is(nearest('COLORNOISE', names), 'colourNoise');
});

test('a word that is near to none finds none', (t) => {
  t.is(nearest('banana', names), undefined);
  t.is(nearest('x', []), undefined);
});

test('the suggestion names the nearest, or all', (t) => {
  t.is(suggestion('epoch', names), 'Did you mean "epochs"?');
  t.is(suggestion('banana', names), 'Known: batch, epochs, weightDecay, colourNoise.');
  t.is(suggestion('banana', []), '');
});
