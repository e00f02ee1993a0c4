-- Runs when the volume is empty. Each service has its own database and role; the passwords are in their Secrets.
\getenv user_service_password USER_SERVICE_PASSWORD
\getenv order_service_password ORDER_SERVICE_PASSWORD

CREATE ROLE user_service LOGIN PASSWORD :'user_service_password';
CREATE DATABASE users OWNER user_service;
REVOKE CONNECT ON DATABASE users FROM PUBLIC;

CREATE ROLE order_service LOGIN PASSWORD :'order_service_password';
CREATE DATABASE orders OWNER order_service;
REVOKE CONNECT ON DATABASE orders FROM PUBLIC;
