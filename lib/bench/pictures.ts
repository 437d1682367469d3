/** Pictures that are drawn on the spot. */
import { encode } from 'fast-png';

/** `count` PNGs of soft shapes with some noise, so that they compress about as photographs do. The same for the same numbers. */
export function drawn(count: number, width: number, height: number): Uint8Array[] {
  return Array.from({ length: count }, (_, index) => {
    let state = index + 1;
    const noise = () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return (state >>> 24) / 32;
    };
    const data = new Uint8Array(width * height * 3);
    for (let y = 0, at = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1) {
        for (let channel = 0; channel < 3; channel += 1, at += 1) {
          const wave = Math.sin(x / (20 + index + channel * 7)) * Math.cos(y / (15 + channel * 5));
          data[at] = 124 + 90 * wave + noise();
        }
      }
    }
    return encode({ width, height, channels: 3, data });
  });
}
