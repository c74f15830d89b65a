// Browsers start no workers for pages from the file system: there, the worker of the search runs in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(url) {
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      this.inside = this.frame.contentWindow;
      this.inside.postMessage = data => setTimeout(() => this.onmessage?.({data}));
      const script = this.inside.document.createElement("script");
      this.loaded = new Promise(resolve => { script.onload = resolve; });
      script.src = url;
      this.inside.document.head.append(script);
    }

    postMessage(data) {
      this.loaded.then(() => this.inside.onmessage({data}));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
