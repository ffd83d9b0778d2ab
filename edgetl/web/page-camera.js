/**
 * The camera on the page: live answers, and pictures that are kept.
 */

/**
 * Show the camera until it is stopped.
 *
 * @param {object} parts
 * @param {HTMLElement} parts.section  shown meanwhile
 * @param {HTMLElement} parts.video
 * @param {HTMLElement} parts.take  keeps a picture
 * @param {HTMLElement} parts.stop
 * @param {(video: HTMLVideoElement) => Promise<void>} parts.onFrame  called again when it is done
 * @param {(picture: HTMLCanvasElement) => Promise<void>} parts.onPicture
 */
export async function startCamera({ section, video: shown, take, stop, onFrame, onPicture }) {
  const video = /** @type {HTMLVideoElement} */ (shown);
  // The back camera of a phone.
  const stream = await navigator.mediaDevices.getUserMedia({
    video: { facingMode: "environment" },
  });
  const stopped = new AbortController();
  const { signal } = stopped;
  try {
    section.hidden = false;
    video.srcObject = stream;
    await video.play();
    stop.addEventListener("click", () => stopped.abort(), { signal });
    for (const track of stream.getTracks()) {
      track.addEventListener("ended", () => stopped.abort(), { signal }); // such as unplugged
    }
    take.addEventListener("click", () => onPicture(picture(video)), { signal });
    stop.focus();
    for (let shown = -1; !signal.aborted; await new Promise(requestAnimationFrame)) {
      if (video.currentTime === shown) continue; // a screen may be faster than a camera
      shown = video.currentTime;
      await onFrame(video);
    }
  } finally {
    stopped.abort();
    for (const track of stream.getTracks()) track.stop();
    video.srcObject = null;
    section.hidden = true;
  }
}

/** @param {HTMLVideoElement} video  what it shows now */
function picture(video) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d")?.drawImage(video, 0, 0);
  return canvas;
}
