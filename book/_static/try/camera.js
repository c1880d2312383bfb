/** The camera: asked for only when the reader presses its button, switched off after the picture. */

import { Fault, pixelsOf } from "./picture.js";

export class Camera {
  /** @param {HTMLVideoElement} video where its picture is shown */
  constructor(video) {
    this.video = video;
    /** @type {MediaStream | null} */
    this.stream = null;
  }

  /** Ask for the camera and show what it sees; after a fault it is off. Call it again only once it has ended. */
  async start() {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Fault("The browser gives the camera only to pages from https or from localhost.");
    }
    try {
      const wanted = { facingMode: "environment", width: { ideal: 640 }, height: { ideal: 640 } };
      this.stream = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false });
    } catch (error) {
      const refused = error instanceof DOMException && error.name === "NotAllowedError";
      throw new Fault(refused ? "The camera was not allowed. You can still choose a picture." : "No camera was found. You can still choose a picture.");
    }
    this.video.srcObject = this.stream;
    try {
      await this.video.play();
    } catch (error) {
      if (!this.stream) return; // switched off meanwhile, which ends the start
      this.stop();
      throw new Fault("The camera's picture cannot be shown. You can still choose a picture.");
    }
  }

  /** @returns {import("./picture.js").Pixels} what the camera sees now */
  look() {
    return pixelsOf(this.video, this.video.videoWidth, this.video.videoHeight);
  }

  stop() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = this.video.srcObject = null;
  }
}
