/**
 * What the calls of the API take is written beside each of them, in these words: a name that a call does not know, or a value of another type, is
 * ERR_USAGE before anything is done. What is `any` is checked where it is used.
 */
import { z } from 'zod';

import { check, recipeSchema } from './config.js';
import { AlexnodeError, usage } from './errors.js';

/** A schema for every field of `T`, so that none is forgotten. */
export type Shape<T> = Record<keyof T, z.ZodType>;

export const text = z.string().min(1).optional();
export const count = z.int().positive().optional();
export const whole = z.int().nonnegative().optional();
export const flag = z.boolean().optional();
export const positive = z.number().positive().optional();
export const texts = z.array(z.string().min(1)).optional();
export const devices = z.array(z.string()).min(1).max(2).optional();
export const any = z.unknown().optional();

/** Checks the call `name`. A field of the recipe that stands beside it is told where it belongs. */
export function checkCall(schema: z.ZodType, options: object, name: string): void {
  try {
    check(schema, options, name);
  } catch (error) {
    const stray = Object.keys(options ?? {}).find((key) => Object.hasOwn(recipeSchema.shape, key));
    if (stray === undefined || !(error instanceof AlexnodeError) || !error.message.includes(`.${stray}: no such`)) {
      throw error;
    }
    throw usage(error.message, `It is a field of the recipe: { recipe: { ${stray}: ... } }.`);
  }
}
