/** Version 1.17.0 comes without declarations; it exports what this exports. */
declare module 'onnxruntime-node' {
  export * from 'onnxruntime-common';
}
