//! Generated manifests of a platform.

/// The Deployment of `service`, padded to a number of lines.
pub fn deployment(service: &str, image: &str, lines: usize) -> String {
    let mut text = format!(
        "apiVersion: apps/v1
kind: Deployment
metadata:
  name: {service}
  namespace: shop
  labels:
    app.kubernetes.io/name: {service}
spec:
  replicas: 3
  selector:
    matchLabels:
      app.kubernetes.io/name: {service}
  template:
    metadata:
      labels:
        app.kubernetes.io/name: {service}
    spec:
      # Numbers as in the image.
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
      containers:
        - name: service
          image: {image}
          imagePullPolicy: IfNotPresent
          ports:
            - name: grpc
              containerPort: 8080
          readinessProbe:
            grpc:
              port: 8080
          resources:
            requests:
              cpu: 100m
              memory: 128Mi
            limits:
              memory: 256Mi
          env:
            - name: DB_HOST
              valueFrom:
                configMapKeyRef:
                  name: database
                  key: host
"
    );
    fill(&mut text, lines, |text, entry| {
        *text += &format!("            - name: SETTING_{entry}\n              value: \"{entry}\"\n");
    });
    text
}

/// Appends entries until the text has this number of lines.
pub fn fill(text: &mut String, lines: usize, append: impl Fn(&mut String, usize)) {
    for entry in 0.. {
        if text.lines().count() >= lines {
            break;
        }
        append(text, entry);
    }
}
